import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ClientProcess } from '../peers/clients.js';
import { freePorts } from '../peers/ports.js';
import { startChild } from './load.js';

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** What a competitor is put up for. */
export interface Task {
  /** An empty directory of its own. */
  readonly directory: string;
  /** The daemon's socket, for every driver. */
  readonly daemon: string;
  /** Listen with TLS too. */
  readonly tls?: TlsFiles;
  /** Ask for SASL on the UNIX socket; libsasl2's configuration is in this directory. */
  readonly saslDirectory?: string;
}

/** A competitor that was started; it may not listen yet. */
export interface Launched {
  readonly socket: string;
  readonly tlsPort: number | null;
  /** Null where nothing is between clients and daemon. */
  readonly process: ClientProcess | null;
}

/** `direct` is no proxy at all, `relay` one that understands nothing of what it relays. */
type CompetitorKind = 'direct' | 'ours' | 'relay' | 'libvirt';

export interface Competitor {
  readonly name: string;
  readonly kind: CompetitorKind;
  launch(task: Task): Promise<Launched>;
}

/** Enough for every row; the usual 5 000 would leave no room. */
const maxClients = 20_000;

/** HAProxy wants two descriptors for each at its start. */
const relayClients = 8000;

const ourProgram = fileURLToPath(new URL('../../../bin/virtproxyd', import.meta.url));

export const direct: Competitor = {
  name: 'direct',
  kind: 'direct',
  launch: ({ daemon }) => Promise.resolve({ socket: daemon, tlsPort: null, process: null }),
};

/** What one column of the proxy has beside the other. */
export interface OursOptions {
  readonly metrics?: boolean;
  /** Whom workers run as; they have no rights where the daemon's socket is. */
  readonly workerUser?: string;
}

export function ours(
  workers: number,
  { metrics = false, workerUser }: OursOptions = {},
): Competitor {
  const name = workers === 1 ? 'virtproxyd, 1 worker' : `virtproxyd, ${workers} workers`;
  return {
    name: [name, ...(metrics ? ['metrics'] : []), ...(workerUser ? ['own user'] : [])].join(', '),
    kind: 'ours',
    launch: async (task) => {
      const user = workerUser === undefined ? '' : `worker_user = ${workerUser}\n`;
      const cluster = `[cluster]\nworkers = ${workers}\nmin_workers = ${workers}\n${user}[routes]\nqemu = ${task.daemon}\nstorage = ${task.daemon}\n`;
      const listen = `[metrics]\nlisten = ${join(task.directory, 'metrics-sock')}\n`;
      const file = join(task.directory, 'virtproxyd-cluster.ini');
      await writeFile(file, metrics ? cluster + listen : cluster);
      return launchLibvirtStyle(task, [process.execPath, ourProgram]);
    },
  };
}

/**
 * libvirt's own. It finds daemons in /run/libvirt alone, so it gets a /run of its own in a mount
 * namespace.
 */
export function cVirtproxyd(program: string): Competitor {
  const script = [
    'mount -t tmpfs tmpfs /run',
    'mkdir /run/libvirt',
    'for driver in qemu storage; do ln -s "$1" "/run/libvirt/virt${driver}d-sock"; done',
    'shift',
    'exec "$@"',
  ].join('\n');
  return {
    name: 'C virtproxyd',
    kind: 'libvirt',
    launch: (task) =>
      launchLibvirtStyle(task, [
        ...['unshare', '-m', '--', 'sh', '-ec', script, 'sh', task.daemon],
        program,
      ]),
  };
}

/** The HAProxy program, or null when it is not installed. */
export function findHaproxy(): string | null {
  const places = ['/usr/sbin/haproxy', '/usr/local/sbin/haproxy'];
  return places.find((path) => existsSync(path)) ?? null;
}

/** One thread in TCP mode: about the least that any relay costs. */
export function haproxy(program: string): Competitor {
  const [version = ''] =
    /\d+\.\d+/.exec(spawnSync(program, ['-v'], { encoding: 'utf8' }).stdout) ?? [];
  return {
    name: `HAProxy ${version}`,
    kind: 'relay',
    launch: async ({ directory, daemon, tls }) => {
      const socket = join(directory, 'haproxy-sock');
      const file = join(directory, 'haproxy.cfg');
      const binds = [`bind unix@${socket}`];
      const tlsPort = tls ? await freePort() : null;
      if (tls) {
        const pem = join(directory, 'server.pem');
        const parts = await Promise.all([tls.cert, tls.key].map((path) => readFile(path, 'utf8')));
        await writeFile(pem, parts.join(''), { mode: 0o600 });
        binds.push(`bind 127.0.0.1:${tlsPort} ssl crt ${pem} ca-file ${tls.ca} verify required`);
      }
      await writeFile(file, haproxyConf(binds, daemon));
      return { socket, tlsPort, process: startChild([program, '-db', '-f', file]) };
    },
  };
}

function haproxyConf(binds: readonly string[], daemon: string): string {
  return `global
  nbthread 1
  maxconn ${relayClients}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen libvirt
  ${binds.join('\n  ')}
  server daemon unix@${daemon}
`;
}

/** What ours and libvirt's own have in common: the command line and virtproxyd.conf. */
async function launchLibvirtStyle(task: Task, command: readonly string[]): Promise<Launched> {
  const { directory, tls, saslDirectory } = task;
  const tlsPort = tls ? await freePort() : null;
  const values = {
    unix_sock_dir: directory,
    auth_unix_rw: saslDirectory === undefined ? 'none' : 'sasl',
    auth_unix_ro: 'none',
    max_clients: maxClients,
    max_anonymous_clients: maxClients,
    max_queued_clients: 4096,
    ...(tls && {
      listen_tls: 1,
      listen_addr: '127.0.0.1',
      tls_port: String(tlsPort),
      ca_file: tls.ca,
      cert_file: tls.cert,
      key_file: tls.key,
    }),
  };
  const conf = join(directory, 'virtproxyd.conf');
  const lines = Object.entries(values).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
  await writeFile(conf, lines.join(''));
  const args = ['-f', conf, '-p', join(directory, 'virtproxyd.pid')];
  const env = saslDirectory === undefined ? {} : { SASL_CONF_PATH: saslDirectory };
  return {
    socket: join(directory, 'libvirt-sock'),
    tlsPort,
    process: startChild([...command, ...args], { env }),
  };
}

async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port!;
}
