/** The fuzzer: `npm run fuzz -- --help`. */
import { command, numberOf } from '../peers/command.js';
import { Campaign, type CampaignReport } from './campaign.js';

const usage = `Usage: npm run fuzz -- [OPTION]...

  --seconds N     how long (60)
  --seed S        any word: the same one, the same sessions (the time)
  --only L:N,...  play these sessions of that seed alone, one after the other

Fuzzed clients and fuzzed daemons on both sides of the proxy, and a healthy client beside them that must notice nothing.
`;

/** The report in words. */
function render(report: CampaignReport, seed: string): string {
  const lines = [
    `seed ${seed}: ${report.sessions} sessions, ${report.frames} frames of fuzzed clients, ` +
      `${report.daemonFaults} faults of fuzzed daemons, ${report.judged} frames judged at daemons`,
    `healthy client: ${report.healthyCalls} calls, median ${report.healthyMedian.toFixed(1)} ms, ` +
      `p99 ${report.healthyP99.toFixed(1)} ms`,
    `most memory of a worker: ${Math.round(report.mostMemory / 1024 / 1024)} MiB`,
    `findings: ${report.findings.length}`,
    ...report.findings,
  ];
  return `${lines.join('\n')}\n`;
}

await command({
  usage,
  defaults: { seconds: '60', seed: String(Date.now()), only: '' },
  run: async ({ seconds, seed, only }) => {
    const names = only === '' ? {} : { only: only.split(',') };
    const report = await Campaign.run({ seed, seconds: numberOf('seconds', seconds, 1), ...names });
    process.stdout.write(render(report, seed));
    return report.findings.length === 0 ? 0 : 1;
  },
});
