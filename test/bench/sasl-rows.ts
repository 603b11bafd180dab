import { dirname } from 'node:path';
import { status } from '../../lib/rpc/frame.js';
import { procedure } from '../../lib/rpc/session-messages.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { SaslClient } from '../native/sasl-client.js';
import { saslEnvironment } from '../native/sasl-environment.js';
import { RawClient } from '../peers/raw-client.js';
import { until } from '../peers/waiting.js';
import type { Bench, Subject } from './bench.js';
import { cpuSeconds } from './processes.js';
import type { Figures, RowDescription } from './results.js';

const mechanism = 'SCRAM-SHA-256';
const maxData = 65_536;

export const saslRows: readonly RowDescription[] = [
  {
    name: 'sasl-opens',
    title: `${mechanism} login over the UNIX socket, one after the other`,
    metrics: {
      time: { name: 'p50 ms', better: 'less', digits: 1 },
      cpu: { name: 'CPU ms/login', better: 'less', digits: 1 },
    },
  },
];

/** Null when SASL can be measured here, else why not. */
export function whyNoSasl(): string | null {
  return saslEnvironment() === null ? "needs Debian's sasl2-bin" : null;
}

/** Measures logins with all competitors that know SASL. */
export async function playSasl(bench: Bench, rows: readonly RowDescription[]): Promise<void> {
  const saslDirectory = dirname(saslEnvironment()!.saslauthd);
  const subjects: Subject[] = [];
  for (const competitor of bench.competitors) {
    if (competitor.kind !== 'ours' && competitor.kind !== 'libvirt') continue;
    const subject = await bench.start(competitor, { daemon: bench.daemon, saslDirectory });
    await until(() => open(subject.socket).catch(notYet), {
      what: `${competitor.name} to log a client in`,
    });
    subjects.push(subject);
  }
  const nameOf = ({ competitor }: Subject): string => competitor.name;
  await bench.interleave(rows, subjects, nameOf, (_row, subject) => measure(bench, subject));
}

async function measure(bench: Bench, { socket, pids }: Subject): Promise<Figures> {
  const processes = pids();
  const cpu = cpuSeconds(processes);
  const end = performance.now() + bench.options.seconds * 1000;
  const times: number[] = [];
  while (performance.now() < end) times.push(await open(socket));
  const used = cpuSeconds(processes) - cpu;
  times.sort((a, b) => a - b);
  return { time: times[Math.floor(times.length / 2)]!, cpu: (used * 1000) / times.length };
}

/** Connects, logs in and opens; milliseconds. */
async function open(socket: string): Promise<number> {
  const { user, password } = saslEnvironment()!;
  const begun = performance.now();
  const client = await RawClient.connect(socket);
  const login = new SaslClient({ user, password });
  try {
    await client.call(procedure.authList);
    await client.call(procedure.authSaslInit);
    let data = login.start(mechanism);
    let number: number = procedure.authSaslStart;
    let prefix = new XdrWriter().string(mechanism);
    for (let complete = false; !complete;) {
      const reply = await client.call(number, withData(prefix, data));
      if (reply.status !== status.ok) throw new Error('The login was refused.');
      const reader = new XdrReader(reply.payload);
      complete = reader.bool('complete');
      const answer = readData(reader);
      if (answer !== null) data = login.step(answer);
      number = procedure.authSaslStep;
      prefix = new XdrWriter();
    }
    const opened = await client.openUri('qemu:///system');
    if (opened.status !== status.ok) throw new Error('The connection was not opened.');
    return performance.now() - begun;
  } finally {
    login.dispose();
    client.destroy();
  }
}

/** A competitor that does not listen yet is asked again. */
function notYet(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return null;
  throw error;
}

function withData(writer: XdrWriter, data: Buffer | null): Buffer {
  writer.bool(data === null).unsigned(data?.length ?? 0);
  for (const char of new Int8Array(data ?? [])) writer.int(char);
  return writer.finish();
}

function readData(reader: XdrReader): Buffer | null {
  const isNull = reader.bool('nil');
  const length = reader.count('data', maxData, 4);
  const data = Buffer.from(Array.from({ length }, () => reader.int('data')));
  return isNull ? null : data;
}
