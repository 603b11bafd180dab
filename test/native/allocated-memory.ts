import { koffi, libc } from '../../lib/native/library.js';

/** Fields of glibc's struct mallinfo2, all size_t. Source: mallinfo(3). */
const fields = [
  ...['arena', 'ordblks', 'smblks', 'hblks', 'hblkhd'],
  ...['usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'],
];

let mallinfo2: (() => { readonly uordblks: number; readonly hblkhd: number }) | undefined;

/**
 * Bytes that C code of this process has allocated and not freed, over all threads. Unlike the
 * resident size it does not depend on how the heap is laid out, so that it tells a leak from a heap
 * that has not found its size yet.
 */
export function allocatedMemory(): number {
  if (mallinfo2 === undefined) {
    koffi().struct('mallinfo2', Object.fromEntries(fields.map((name) => [name, 'size_t'])));
    mallinfo2 = libc().func('mallinfo2 mallinfo2()') as NonNullable<typeof mallinfo2>;
  }
  const { uordblks, hblkhd } = mallinfo2();
  return uordblks + hblkhd;
}
