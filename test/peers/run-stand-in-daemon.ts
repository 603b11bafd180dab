/**
 * A stand-in daemon as a program of its own: `node run-stand-in-daemon.js SOCKET`. It tells its
 * name when asked for the host's, and ends by itself when it has had no connection for some
 * seconds, as a real one with --timeout does.
 */
import { basename } from 'node:path';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { StandInDaemon } from './stand-in-daemon.js';

const getHostname = 59;
const idleMs = 5000;

const socket = process.argv[2];
if (socket === undefined) throw new Error('Which socket?');
const daemon = await StandInDaemon.listen(socket);
daemon.answer(getHostname, () => encodeString(basename(socket)));
let busyAt = performance.now();
setInterval(() => {
  const now = performance.now();
  if (daemon.connections.some(({ ended }) => !ended)) busyAt = now;
  if (now - busyAt > idleMs) process.exit();
}, 100);
