/** The fuzzer: `npm run fuzz -- --help`. */
import { parseArgs } from 'node:util';
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

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: String(Date.now()) },
      only: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new Error(`--seconds: '${values.seconds}' is no number above 0`);
  const { seed, only } = values;
  const names = only === undefined ? {} : { only: only.split(',') };
  const report = await Campaign.run({ seed, seconds, ...names });
  process.stdout.write(render(report, seed));
  return report.findings.length === 0 ? 0 : 1;
}

process.exit(await main());
