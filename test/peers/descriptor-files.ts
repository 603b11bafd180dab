import { closeSync, fstatSync, readdirSync, readSync } from 'node:fs';
import { sendWithDescriptors } from '../../lib/native/descriptor-passing.js';
import { closeDescriptors, sealedMemoryFile } from '../../lib/native/descriptors.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import type { FrameSocket } from './frame-socket.js';
import { until } from './waiting.js';

/** Descriptors of one new file each, which holds the text given for it. */
export function filesOf(...texts: string[]): number[] {
  return texts.map((text) => sealedMemoryFile('test', Buffer.from(text)));
}

/** What the files of descriptors hold; closes them. */
export function textsOf(descriptors: readonly number[]): string[] {
  return descriptors.map((descriptor) => {
    const bytes = Buffer.alloc(fstatSync(descriptor).size);
    readSync(descriptor, bytes, 0, bytes.length, 0);
    closeSync(descriptor);
    return bytes.toString();
  });
}

/** Sends bytes, and behind them one byte for each descriptor, as libvirt does; closes them. */
export async function sendWithFiles(
  { socket }: FrameSocket,
  bytes: Buffer,
  descriptors: readonly number[],
): Promise<void> {
  socket.write(bytes);
  try {
    await until(() => socket.writableLength === 0, { what: 'the frame to be sent' });
    for (const descriptor of descriptors) {
      const { fd } = handleOf(socket);
      await until(() => sendWithDescriptors(fd, Buffer.alloc(1), [descriptor]) === 1, {
        what: 'a descriptor to be sent',
      });
    }
  } finally {
    closeDescriptors(descriptors);
  }
}

/** The numbers of the descriptors that a process has. */
export function descriptorNumbers(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`).map(Number);
}

export const descriptorCount = (pid: number): number => descriptorNumbers(pid).length;
