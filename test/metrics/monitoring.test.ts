import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { durations, Exposition } from '../../lib/metrics/exposition.js';
import { families } from '../../lib/metrics/families.js';
import { WorkerTotals } from '../../lib/metrics/worker-totals.js';
import { run, searchPath } from '../peers/clients.js';
import { freshDirectory } from '../peers/waiting.js';
import { factsWith, now } from './facts.js';
import { reportOf } from './reports.js';

const at = (name: string): string =>
  fileURLToPath(new URL(`../../../conf/monitoring/${name}`, import.meta.url));
const rulesFile = at('virtproxyd-rules.yml');
const rules = readFileSync(rulesFile, 'utf8');
const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name!);

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
  readonly targets?: readonly { readonly expr: string; readonly datasource: { uid: string } }[];
}
const dashboard = JSON.parse(readFileSync(at('virtproxyd-dashboard.json'), 'utf8')) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { name: string; type: string }[] };
};
const expressions = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));

/** Labels of every series there is; a histogram is three. */
const labelsOf = new Map<string, readonly string[]>([
  ...families.map(({ name, labels }) => [name, labels] as const),
  [`${durations.name}_bucket`, ['daemon', 'le']],
  [`${durations.name}_sum`, ['daemon']],
  [`${durations.name}_count`, ['daemon']],
]);
/** What Prometheus adds to them. */
const targetLabels = ['job', 'instance'];

interface Selector {
  readonly metric: string;
  readonly matchers: readonly { readonly label: string; readonly value: string }[];
}

/** Whatever looks like a metric of ours, with the labels it is selected by. */
function selectorsIn(text: string): Selector[] {
  return [...text.matchAll(/\b((?:virtproxyd|process)_[a-z_]+)(?:\{(.*?)\})?/g)].map(
    ([, metric = '', inner = '']) => ({
      metric,
      matchers: [...inner.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"(.*?)"/g)].map(
        ([, label = '', value = '']) => ({ label, value }),
      ),
    }),
  );
}

/** A daemon that shows a value of every label that is not a daemon's or a procedure's name. */
async function exposed(): Promise<string> {
  const totals = new WorkerTotals();
  totals.add(0, reportOf(2, 0.001, 1));
  return new Exposition().text(factsWith({ totals, certificates: { server: now, ca: now } }));
}

describe('conf/monitoring', () => {
  for (const [what, text] of [
    ['the rules', rules],
    ['the dashboard', expressions.join('\n')],
  ] as const) {
    it(`names in ${what} only metrics, labels and values that exist`, async () => {
      const selectors = selectorsIn(text);
      expect(selectors).not.to.be.empty;
      const shown = await exposed();
      for (const { metric, matchers } of selectors) {
        const labels = labelsOf.get(metric);
        expect(labels, metric).not.to.equal(undefined);
        for (const { label, value } of matchers) {
          expect([...labels!, ...targetLabels], `a label of ${metric}`).to.include(label);
          if (labels!.includes(label)) {
            expect(shown, `a value of ${metric}`).to.match(
              new RegExp(`^${metric}\\{.*${label}="${value}"`, 'm'),
            );
          }
        }
      }
      // Those that something is summed by.
      const known = [...labelsOf.values()].flat();
      for (const [, list = ''] of text.matchAll(/\b(?:by|without) \((.*?)\)/g)) {
        for (const label of list.split(', ')) expect([...known, ...targetLabels]).to.include(label);
      }
    });
  }

  it('has a dashboard whose panels have places of their own and take the data source chosen', () => {
    const taken = new Set<string>();
    for (const { id, title, type, datasource, gridPos, targets = [] } of dashboard.panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        expect(x, title).to.be.below(24);
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x},${y}`), `${title} is in another's place`).to.be.false;
          taken.add(`${x},${y}`);
        }
      }
      expect(dashboard.panels.filter((other) => other.id === id)).to.have.lengthOf(1);
      if (type === 'row') continue;
      expect(targets, title).not.to.be.empty;
      for (const source of [datasource, ...targets.map((target) => target.datasource)]) {
        expect(source?.uid, title).to.equal('${datasource}');
      }
    }
    expect(dashboard.templating.list.find(({ name }) => name === 'datasource')?.type).to.equal(
      'datasource',
    );
  });
});

/**
 * Series by name with their values a minute from the start on, in promtool's notation, and when to
 * look.
 */
interface Situation {
  readonly series: Readonly<Record<string, string>>;
  readonly after: string;
}

const inTime = (after: string, series: Record<string, string>): Situation => ({ series, after });
const fullness = (clients: number): Record<string, string> => ({
  'virtproxyd_clients{instance="a",transport="unix",state="serving"}': `${clients - 1}x30`,
  'virtproxyd_clients{instance="a",transport="tls",state="login"}': '1x30',
  'virtproxyd_clients_max{instance="a"}': '100x30',
});
const durationsOf = (slow: number): Record<string, string> => ({
  'virtproxyd_call_duration_seconds_bucket{daemon="virtqemud",le="1"}': `0+${100 - slow}x30`,
  'virtproxyd_call_duration_seconds_bucket{daemon="virtqemud",le="10"}': '0+100x30',
  'virtproxyd_call_duration_seconds_bucket{daemon="virtqemud",le="+Inf"}': '0+100x30',
});
const failures = 'virtproxyd_daemon_failures_total{daemon="virtqemud",reason="lost"}';
const restarts = 'virtproxyd_worker_restarts_total';
const daemonRestarts = 'virtproxyd_daemon_restarts_total{daemon="virtqemud"}';
const expiry = 'virtproxyd_certificate_expiry_timestamp_seconds{certificate="server"}';
const fortnight = 14 * 86_400;

/** Where each alert fires, and where not. */
const situations: Readonly<Record<string, { fires: Situation[]; quiet: Situation[] }>> = {
  VirtproxydDown: {
    fires: [inTime('5m', { 'up{job="virtproxyd"}': '1 0x10' })],
    quiet: [
      inTime('2m', { 'up{job="virtproxyd"}': '1 0x10' }),
      inTime('5m', { 'up{job="virtproxyd"}': '1x10' }),
      inTime('5m', { 'up{job="other"}': '0x10' }),
    ],
  },
  VirtproxydNoWorker: {
    fires: [inTime('5m', { 'virtproxyd_workers{state="ready"}': '2 0x10' })],
    quiet: [
      inTime('1m', { 'virtproxyd_workers{state="ready"}': '2 0x10' }),
      inTime('5m', {
        'virtproxyd_workers{state="ready"}': '1x10',
        'virtproxyd_workers{state="draining"}': '0x10',
      }),
    ],
  },
  VirtproxydReloadFailed: {
    fires: [inTime('1m', { virtproxyd_last_reload_successful: '1 0x10' })],
    quiet: [inTime('2m', { virtproxyd_last_reload_successful: '0 1x10' })],
  },
  VirtproxydWorkersRestart: {
    fires: [
      inTime('12m', {
        [`${restarts}{reason="crash"}`]: '0x5 2x10',
        [`${restarts}{reason="hang"}`]: '0x5 1x10',
      }),
    ],
    quiet: [
      inTime('12m', { [`${restarts}{reason="crash"}`]: '0x5 2x10' }),
      inTime('30m', { [`${restarts}{reason="crash"}`]: '0x5 9x30' }),
    ],
  },
  VirtproxydDaemonFails: {
    fires: [
      inTime('8m', { [failures]: '3x7 4x10' }),
      // The first connection ever fails.
      inTime('8m', { [failures]: '_x7 1x10' }),
    ],
    quiet: [
      inTime('8m', { [failures]: '3x20' }),
      inTime('8m', { [failures]: '_x7 0x10' }),
      inTime('20m', { [failures]: '_x7 1x20' }),
    ],
  },
  VirtproxydDaemonRestarts: {
    fires: [inTime('12m', { [daemonRestarts]: '1x5 4x10' })],
    quiet: [
      inTime('12m', { [daemonRestarts]: '1x5 2x10' }),
      inTime('30m', { [daemonRestarts]: '1x5 9x30' }),
    ],
  },
  VirtproxydAlmostFull: {
    fires: [inTime('10m', fullness(91))],
    quiet: [inTime('4m', fullness(91)), inTime('10m', fullness(90))],
  },
  VirtproxydSlowDaemon: {
    fires: [inTime('12m', durationsOf(10))],
    quiet: [inTime('12m', durationsOf(0)), inTime('3m', durationsOf(10))],
  },
  VirtproxydCertificateExpires: {
    fires: [inTime('1m', { [expiry]: `${fortnight}x10` }), inTime('1m', { [expiry]: '0x10' })],
    quiet: [inTime('1m', { [expiry]: `${fortnight + 3600}x10` })],
  },
  VirtproxydLosesLog: {
    fires: [inTime('10m', { virtproxyd_log_dropped_lines_total: '5x5 6x10' })],
    quiet: [inTime('10m', { virtproxyd_log_dropped_lines_total: '5x20' })],
  },
};

const found = spawnSync('promtool', ['--version'], { env: { PATH: searchPath } });
const obstacle = found.status === 0 ? null : 'needs promtool';

describe(`conf/monitoring, for promtool${obstacle === null ? '' : ` (${obstacle})`}`, () => {
  let directory: string;

  before(async function () {
    if (obstacle !== null) this.skip();
    directory = await freshDirectory();
  });
  after(async () => {
    if (obstacle === null) await rm(directory, { recursive: true });
  });

  /** Has promtool look at a file; JSON is YAML too. */
  async function promtool(action: 'check' | 'test', content: unknown): Promise<string> {
    const file = join(directory, 'file.json');
    await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
    const { code, stdout, stderr } = await run('promtool', [action, 'rules', file]);
    return code === 0 ? 'good' : `${stdout}${stderr}`;
  }

  const alertTest = (alertname: string, { series, after }: Situation, fires: boolean): unknown => ({
    rule_files: [rulesFile],
    evaluation_interval: '1m',
    tests: [
      {
        interval: '1m',
        input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
        promql_expr_test: [
          {
            expr: `count(ALERTS{alertname="${alertname}",alertstate="firing"})`,
            eval_time: after,
            exp_samples: fires ? [{ labels: '{}', value: 1 }] : [],
          },
        ],
      },
    ],
  });

  it('has rules without a mistake', async () => {
    expect(await promtool('check', rules)).to.equal('good');
    expect(await promtool('check', rules.replace('sum without', 'sum wihtout'))).to.include(
      'wihtout',
    );
  });

  it('has a dashboard whose every expression can be evaluated', async () => {
    const plain = (expr: string): string =>
      expr
        .replaceAll('$__rate_interval', '5m')
        .replaceAll('$__range', '1h')
        .replaceAll('$instance', '.*');
    const checked = expressions.map((expr, index) => ({ record: `r${index}`, expr: plain(expr) }));
    expect(await promtool('check', { groups: [{ name: 'd', rules: checked }] })).to.equal('good');
  });

  it('has no alert that is not tried', () => {
    expect(Object.keys(situations)).to.have.members(alerts);
  });

  for (const [alert, { fires, quiet }] of Object.entries(situations)) {
    it(`has ${alert} fire when it should, and only then`, async () => {
      for (const situation of fires) {
        expect(await promtool('test', alertTest(alert, situation, true))).to.equal('good');
      }
      for (const situation of quiet) {
        expect(await promtool('test', alertTest(alert, situation, false))).to.equal('good');
      }
    });
  }
});
