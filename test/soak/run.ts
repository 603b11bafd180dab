/** The soak: `npm run soak -- --help`. */
import { command, numberOf } from '../peers/command.js';
import { Soak, type SoakReport } from './soak.js';

const usage = `Usage: npm run soak -- [OPTION]...

  --minutes N    how long at most (5)
  --sessions N   how many sessions at most (as many as there is time for)
  --clients N    how many clients at a time (16); 0: only one that watches keepalive, every PONG within 100 ms

Sessions of every kind, half of them cut off at a random byte, with reloads, killed workers and restarted daemons; at the
end descriptors, memory, sockets and clients must be where they were.
`;

/**
 * Milliseconds in which a PONG has to come when no load but its own blocked calls is there (goal
 * 9).
 */
const pongGoal = 100;

function render(report: SoakReport): string {
  const pair = ({ before, after }: { before: number; after: number }): string =>
    `${before} -> ${after}`;
  const lines = [
    `${report.sessions} sessions, ${report.cutOff} cut off, ${report.broken} broken by ` +
      `${report.kills} killed workers, ${report.restarts} restarts of the daemons, ${report.reloads} reloads`,
    `keepalive: ${report.pongs} PONGs, the slowest after ${report.slowestPong.toFixed(1)} ms`,
    `primary and workers, bytes in use: ${report.memory.map(pair).join(', ')}`,
    `primary and workers, descriptors: ${report.descriptors.map(pair).join(', ')}`,
    `findings: ${report.findings.length}`,
    ...report.findings,
  ];
  return `${lines.join('\n')}\n`;
}

await command({
  usage,
  defaults: { minutes: '5', sessions: 'Infinity', clients: '16' },
  run: async (values) => {
    const clients = numberOf('clients', values.clients);
    const report = await Soak.run({
      seconds: numberOf('minutes', values.minutes) * 60,
      sessions: numberOf('sessions', values.sessions, 1),
      clients,
    });
    process.stdout.write(render(report));
    const isLate = clients === 0 && report.slowestPong > pongGoal;
    if (isLate) process.stdout.write(`a PONG took more than ${pongGoal} ms\n`);
    return report.findings.length > 0 || isLate ? 1 : 0;
  },
});
