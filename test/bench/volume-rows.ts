import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Subject } from './bench.js';
import { socketUri, virsh } from '../peers/clients.js';
import { ModularHost } from '../peers/modular-host.js';
import { cpuSeconds } from './processes.js';
import type { Figures, Metrics, RowDescription } from './results.js';

const metrics = {
  time: { name: 's', better: 'less', digits: 2 },
  cpu: { name: 'CPU s', better: 'less', digits: 2 },
} as const satisfies Metrics;

const pool = 'bench';
const volume = 'bench.img';

const mebibyte = 1024 * 1024;

/** Milliseconds that one transfer may take. */
const patience = 300_000;

interface VolumeRow extends RowDescription {
  readonly command: 'vol-download' | 'vol-upload';
}

const title = "of a volume with virsh, libvirt's own storage daemon behind";

/** Rows with a real client and a real daemon. */
export const volumeRows: readonly VolumeRow[] = [
  { name: 'volume-download', title: `download ${title}`, metrics, command: 'vol-download' },
  { name: 'volume-upload', title: `upload ${title}`, metrics, command: 'vol-upload' },
];

/** Needs what `whyNoHost()` asks for. */
export async function playVolumes(bench: Bench, rows: readonly VolumeRow[]): Promise<void> {
  const host = await ModularHost.start({
    drivers: ['storage'],
    directory: join(bench.directory, 'host'),
  });
  bench.closing(() => host.stop());
  const daemon = host.socket('storage');
  const content = join(bench.directory, 'content');
  await makeContent(content, bench.options.streamBytes);
  await makeVolume(bench, socketUri('storage', daemon), content);
  const subjects: Subject[] = [];
  for (const competitor of bench.competitors) {
    subjects.push(await bench.start(competitor, { daemon }, 'storage:///system'));
  }
  const nameOf = ({ competitor }: Subject): string => competitor.name;
  await bench.interleave(rows, subjects, nameOf, (row, subject) =>
    measure(subject, row.command, row.command === 'vol-upload' ? content : '/dev/null'),
  );
}

async function measure(
  { socket, pids }: Subject,
  command: VolumeRow['command'],
  file: string,
): Promise<Figures> {
  const processes = pids();
  const cpu = cpuSeconds(processes);
  const begun = performance.now();
  await storage(socketUri('storage', socket), [command, '--pool', pool, volume, file]);
  const time = (performance.now() - begun) / 1000;
  return { time, ...(processes.length > 0 && { cpu: cpuSeconds(processes) - cpu }) };
}

/** Bytes without holes or repetition within a frame, as an image's are. */
async function makeContent(path: string, bytes: number): Promise<void> {
  const block = Buffer.alloc(mebibyte);
  for (let at = 0; at < block.length; at += 4) block.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  await writeFile(path, '');
  for (let at = 0; at < bytes; at += block.length) await writeFile(path, block, { flag: 'a' });
}

async function makeVolume(bench: Bench, uri: string, content: string): Promise<void> {
  const target = join(bench.directory, 'pool');
  await mkdir(target);
  await storage(uri, ['pool-define-as', pool, 'dir', '--target', target]);
  await storage(uri, ['pool-start', pool]);
  const size = `${bench.options.streamBytes}B`;
  await storage(uri, ['vol-create-as', pool, volume, size, '--format', 'raw']);
  await storage(uri, ['vol-upload', '--pool', pool, volume, content]);
}

async function storage(uri: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await virsh(uri, args, { timeoutMs: patience });
  if (code !== 0) throw new Error(`virsh ${args.join(' ')}: ${stderr}`);
}
