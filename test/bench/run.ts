/** The benchmark: `npm run bench -- --help`. */
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { whyNoHost } from '../peers/modular-host.js';
import { Bench } from './bench.js';
import { cVirtproxyd, direct, findHaproxy, haproxy, ours, type Competitor } from './competitors.js';
import { floodRows, playFloods } from './flood-rows.js';
import { lifeRows, playLife } from './life-rows.js';
import { capacityRows, plainRows, playPlain, playTls, tlsRows } from './load-rows.js';
import { buildPrograms, programsLacking } from './programs.js';
import { headroomOf, type Report, type RowDescription } from './results.js';
import { playSasl, saslRows, whyNoSasl } from './sasl-rows.js';
import { renderPlot } from './plot.js';
import { renderTable } from './table.js';
import { playVolumes, volumeRows } from './volume-rows.js';

const usage = `Usage: npm run bench -- [OPTION]...

  --quick                short: 1 s, one repetition, 128 MiB
  --rows NAME,...        only these rows; a NAME that is none stands for all that begin with it
  --seconds S            how long each repetition loads a proxy (3)
  --repeats N            repetitions of each row (3)
  --workers N,...        virtproxyd with these numbers of workers (1, 2 and 4, as far as there are cores)
  --metrics              virtproxyd with metrics on as well, to see what they cost
  --worker-user NAME     virtproxyd with workers of this user as well, to see what that costs
  --c-virtproxyd PATH    compare with libvirt's own virtproxyd
  --json FILE            write all figures
  --svg FILE             write a plot
  --list                 name the rows and exit

Every row is measured with each proxy in turn, and all of that is repeated.
`;

const options = {
  quick: { type: 'boolean' },
  rows: { type: 'string' },
  seconds: { type: 'string' },
  repeats: { type: 'string' },
  workers: { type: 'string' },
  metrics: { type: 'boolean' },
  'worker-user': { type: 'string' },
  'c-virtproxyd': { type: 'string' },
  json: { type: 'string' },
  svg: { type: 'string' },
  list: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

const MiB = 1024 * 1024;

/** Rows that are measured in the same way. */
interface RowSet<Row extends RowDescription> {
  readonly rows: readonly Row[];
  /** Null when they can be measured here. */
  readonly whyNot: (bench: Bench) => string | null;
  readonly play: (bench: Bench, rows: readonly Row[]) => Promise<void>;
}

/** Hides the type of a set's rows, so that all sets fit one list. */
function rowSet<Row extends RowDescription>({
  rows,
  whyNot,
  play,
}: RowSet<Row>): {
  readonly rows: readonly Row[];
  readonly measure: (bench: Bench, wanted: (row: RowDescription) => boolean) => Promise<void>;
} {
  const measure = async (bench: Bench, wanted: (row: RowDescription) => boolean): Promise<void> => {
    const chosen = rows.filter(wanted);
    if (chosen.length === 0) return;
    const reason = whyNot(bench);
    const names = chosen.map(({ name }) => name).join(', ');
    if (reason !== null) bench.skip(names, reason);
    else
      await bench
        .within(() => play(bench, chosen))
        .catch((error: unknown) => {
          bench.fail(names, error);
        });
  };
  return { rows, measure };
}

const sets = [
  rowSet({ rows: plainRows, whyNot: () => null, play: playPlain }),
  rowSet({ rows: floodRows, whyNot: () => null, play: playFloods }),
  rowSet({ rows: lifeRows, whyNot: () => null, play: playLife }),
  rowSet({ rows: volumeRows, whyNot: whyNoHost, play: playVolumes }),
  rowSet({
    rows: tlsRows,
    whyNot: ({ programs }) =>
      programs.speaksTls ? (certificatesLacking() ?? null) : "needs GnuTLS's headers",
    play: async (bench, rows) => {
      const authority = Authority.create(bench.directory, 'authority');
      const files = (name: string, lines: readonly string[]) => ({
        ...authority.issue(name, { purpose: lines }),
        ca: authority.cert,
      });
      const server = files('server', purpose.server);
      await playTls(bench, rows, server, files('client', purpose.client));
    },
  }),
  rowSet({ rows: saslRows, whyNot: whyNoSasl, play: playSasl }),
];

/** Numbers above 0, separated by commas. */
function numbers(text: string, option: string): number[] {
  const list = text.split(',').map(Number);
  if (list.some((number) => !(number > 0))) throw new Error(`--${option}: '${text}' is no number`);
  return list;
}

function competitorsFor(
  workers: readonly number[],
  metrics: boolean,
  workerUser: string | undefined,
  cProgram: string | undefined,
): Competitor[] {
  const relay = findHaproxy();
  return [
    direct,
    ...workers.flatMap((count) => [
      ours(count),
      ...(metrics ? [ours(count, { metrics })] : []),
      ...(workerUser === undefined ? [] : [ours(count, { workerUser })]),
    ]),
    ...(relay === null ? [] : [haproxy(relay)]),
    ...(cProgram === undefined ? [] : [cVirtproxyd(cProgram)]),
  ];
}

function reportOf(bench: Bench): Report {
  const { results, skipped, options: settings } = bench;
  const machine = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryMiB: Math.round(totalmem() / MiB),
    kernel: release(),
    node: process.versions.node,
  };
  const { seconds, repeats } = settings;
  const headroom = headroomOf(results.rows, capacityRows, direct.name, 'rate');
  return {
    date: new Date().toISOString(),
    machine,
    seconds,
    repeats,
    rows: results.rows,
    skipped,
    headroom,
  };
}

function allRows(): RowDescription[] {
  return sets.flatMap(({ rows }): readonly RowDescription[] => rows);
}

async function measureAll(bench: Bench, names: readonly string[] | undefined): Promise<void> {
  const all = allRows();
  const isExact = (word: string): boolean => all.some(({ name }) => name === word);
  const wanted = ({ name }: RowDescription): boolean =>
    names?.some((word) => name === word || (!isExact(word) && name.startsWith(word))) ?? true;
  if (!all.some(wanted)) throw new Error('--rows: no row has such a name; see --list');
  for (const { measure } of sets) await measure(bench, wanted);
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  if (values.list) {
    for (const { name, title } of allRows()) process.stdout.write(`${name.padEnd(18)}${title}\n`);
    return 0;
  }
  const lacking = programsLacking();
  if (lacking !== undefined) throw new Error(`The load generator cannot be built: it ${lacking}.`);
  const cores = availableParallelism();
  const workers = values.workers
    ? numbers(values.workers, 'workers')
    : [1, 2, 4].filter((count) => count === 1 || count <= cores);
  const [seconds = 1] = numbers(values.seconds ?? (values.quick ? '1' : '3'), 'seconds');
  const [repeats = 1] = numbers(values.repeats ?? (values.quick ? '1' : '3'), 'repeats');
  const streamBytes = (values.quick ? 128 : 512) * MiB;
  const names = values.rows?.split(',');
  const competitors = competitorsFor(
    workers,
    values.metrics === true,
    values['worker-user'],
    values['c-virtproxyd'],
  );

  const bench = await Bench.open(
    buildPrograms(),
    competitors,
    { seconds, repeats, streamBytes },
    (line) => process.stderr.write(`${line}\n`),
  );
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => resolve('interrupted'));
    }
  });
  const measured = measureAll(bench, names).finally(() => bench.close());
  // A signal may reach what is measured first: its failure then is no error.
  const outcome = await Promise.race([interrupted, measured]).catch((error: unknown) =>
    Promise.race([interrupted, Promise.reject(error as Error)]),
  );
  if (outcome === 'interrupted') {
    measured.catch(() => undefined);
    await bench.close();
    return 130;
  }

  const report = reportOf(bench);
  const kinds = new Map(competitors.map(({ name, kind }) => [name, kind]));
  const yardsticks = competitors
    .filter(({ kind }) => kind !== 'ours')
    .map(({ name, kind }) => ({
      competitor: name,
      label: kind === 'libvirt' ? '× C' : `× ${name}`,
    }));
  process.stdout.write(renderTable(report, yardsticks));
  if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  if (values.svg)
    writeFileSync(
      values.svg,
      renderPlot(report, (name) => kinds.get(name) ?? 'relay'),
    );
  return bench.failures === 0 ? 0 : 1;
}

// What was interrupted may still wait for something that has ended.
process.exit(await main());
