import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { ClientProcess } from '../peers/clients.js';
import { RawClient } from '../peers/raw-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { until } from '../peers/waiting.js';

const getHostname = 59;

async function isServed(socket: string): Promise<boolean> {
  const client = await RawClient.connect(socket).catch(() => null);
  client?.destroy();
  return client !== null;
}

/**
 * Starts an installed program, whose files are in `directory`, calls a daemon through it, and stops
 * it again.
 */
export async function expectServes(
  program: string,
  directory: string,
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
  qemu.answer(getHostname, () => encodeString('installed'));
  const conf = join(directory, 'c.conf');
  await writeFile(
    conf,
    `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_rw_perms = "0700"\n`,
  );
  await writeFile(
    join(directory, 'virtproxyd-cluster.ini'),
    `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = 1\n`,
  );
  const daemon = new ClientProcess(program, ['-f', conf, '-p', join(directory, 'pid')], { env });
  try {
    const socket = join(directory, 'libvirt-sock');
    await until(() => isServed(socket), {
      what: 'the installed program to serve',
      deadlineMs: 20_000,
    });
    const client = await RawClient.open(socket, 'qemu:///system');
    expect((await client.call(getHostname)).payload).to.deep.equal(encodeString('installed'));
    client.destroy();
  } finally {
    await daemon.kill('SIGTERM');
    await qemu.stop();
  }
  expect(daemon.stderr).to.equal('');
}
