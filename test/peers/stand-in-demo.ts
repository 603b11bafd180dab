/**
 * What the quickstart shows where no libvirt daemon can run: virtproxyd between a small client and
 * stand-in daemons, all of this project. Needs nothing but Node.js.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawn } from 'node:child_process';
import { encodeInt, encodeString } from '../../lib/rpc/session-messages.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { RawClient } from './raw-client.js';
import { StandInDaemon } from './stand-in-daemon.js';
import { until } from './waiting.js';

/**
 * Procedures of the remote program: CONNECT_GET_HOSTNAME, CONNECT_NUM_OF_DOMAINS,
 * CONNECT_NUM_OF_NETWORKS.
 */
const getHostname = 59;
const numOfDomains = 51;
const numOfNetworks = 52;

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

const directory = mkdtempSync(join(tmpdir(), 'vp-'));
const hypervisor = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
hypervisor.answer(getHostname, () => encodeString('stand-in.example'));
hypervisor.answer(numOfDomains, () => encodeInt(3));
const network = await StandInDaemon.listen(join(directory, 'virtnetworkd-sock'));
network.answer(numOfNetworks, () => encodeInt(2));
const conf = join(directory, 'virtproxyd.conf');
writeFileSync(
  conf,
  `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_level = 2\n`,
);
writeFileSync(
  join(directory, 'virtproxyd-cluster.ini'),
  `[routes]\nqemu = ${hypervisor.path}\nnetwork = ${network.path}\n`,
);
const program = fileURLToPath(new URL('../../../bin/virtproxyd', import.meta.url));
const proxy = spawn(process.execPath, [program, '-f', conf, '-p', join(directory, 'pid')], {
  stdio: ['ignore', 'inherit', 'inherit'],
});
try {
  const socket = join(directory, 'libvirt-sock');
  const uri = process.getuid?.() === 0 ? 'qemu:///system' : 'qemu:///session';
  const client = await until(() => RawClient.open(socket, uri).catch(() => null), {
    what: 'virtproxyd to serve',
  });
  say(`Connected to ${uri} through virtproxyd on ${socket}`);
  const hostname = new XdrReader((await client.call(getHostname)).payload).string('hostname', 256);
  say(`hypervisor daemon: host name ${hostname}`);
  const domains = new XdrReader((await client.call(numOfDomains)).payload).int('num');
  say(`hypervisor daemon: ${domains} domains`);
  const networks = new XdrReader((await client.call(numOfNetworks)).payload).int('num');
  say(`network daemon:    ${networks} networks`);
  client.destroy();
} finally {
  const ended = new Promise((resolve) => proxy.once('exit', resolve));
  proxy.kill('SIGTERM');
  await ended;
  await hypervisor.stop();
  await network.stop();
  rmSync(directory, { recursive: true, force: true });
}
