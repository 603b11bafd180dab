/**
 * A program that a test starts with sockets as descriptors 3, 4, … : prints what the daemon would
 * make of them, as JSON. LISTEN_PID may be `self`, which stands for the program's own process id;
 * its first argument has the ports.
 */
import { spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import {
  ActivationError,
  inheritedSockets,
  missingSockets,
  type PortSettings,
} from '../../../lib/primary/listeners/socket-activation.js';

const { env, pid } = process;
if (env['LISTEN_PID'] === 'self') env['LISTEN_PID'] = String(pid);
const ports = JSON.parse(process.argv[2] ?? '') as PortSettings;

function outcome(): unknown {
  try {
    const sockets = inheritedSockets(env, pid, ports);
    const names = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'];
    const own = sockets.map(({ fd }) => readlinkSync(`/proc/self/fd/${fd}`));
    const { stdout } = spawnSync('sh', ['-c', 'ls -l /proc/self/fd'], { encoding: 'utf8' });
    return {
      sockets,
      missing: missingSockets(sockets),
      variables: names.filter((name) => name in env),
      leaked: own.filter((socket) => stdout.includes(socket)),
    };
  } catch (error) {
    if (error instanceof ActivationError) return { code: error.code, error: error.message };
    throw error;
  }
}

process.stdout.write(JSON.stringify(outcome()));
