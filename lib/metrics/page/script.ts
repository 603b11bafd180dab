/**
 * The script inside the status page: fetches `/status.json` and shows it, again and again. It runs
 * in the browser and is put into the page as one piece, so it imports nothing but types.
 */
import type { DaemonStatus, Health, Status, WorkerStatus } from '../status.js';

/** Milliseconds between looks, and until one is given up. */
const interval = 2000;
const patience = 5000;

/** What a cell of a table shows. */
interface Cell {
  readonly text: string;
  /** Classes: `number`, `wide` (left out on a narrow screen), `quiet`, `bad`. */
  readonly kind?: string;
  /** From 0 to 1: draws a bar. */
  readonly share?: number;
}

const colours: Readonly<Record<Health | 'unknown', string>> = {
  ok: '#2e9e5b',
  degraded: '#d9901a',
  down: '#d13c3c',
  unknown: '#8a919c',
};

const byId = (id: string): HTMLElement => {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no ${id}`);
  return element;
};

const say = (id: string, text: string): void => {
  byId(id).textContent = text;
};

// Numbers as people read them

const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

const count = (number: number): string => plain.format(number);

const plural = (number: number, noun: string): string =>
  `${count(number)} ${noun}${number === 1 ? '' : 's'}`;

function rate(perSecond: number): string {
  if (perSecond === 0) return '0';
  if (perSecond < 10) return perSecond.toFixed(1);
  return perSecond < 10_000 ? count(perSecond) : `${(perSecond / 1000).toFixed(1)} k`;
}

function duration(seconds: number | null): string {
  if (seconds === null) return '–';
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}

function bytes(number: number | null): string {
  if (number === null) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log2(Math.max(number, 1)) / 10), units.length - 1);
  const value = number / 1024 ** power;
  return `${value.toFixed(power > 0 && value < 10 ? 1 : 0)} ${units[power] ?? ''}`;
}

/** The two largest units of a time in milliseconds. */
function span(milliseconds: number): string {
  const seconds = Math.max(Math.floor(milliseconds / 1000), 0);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const sum = (numbers: Iterable<number>): number => [...numbers].reduce((all, one) => all + one, 0);

// Pieces

function fill(id: string, rows: readonly (readonly Cell[])[], empty: string): void {
  const body = byId(id);
  if (rows.length === 0) {
    const cell = document.createElement('td');
    cell.className = 'quiet';
    cell.colSpan = 8;
    cell.textContent = empty;
    const row = document.createElement('tr');
    row.append(cell);
    body.replaceChildren(row);
    return;
  }
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement('tr');
      row.append(...cells.map(cellOf));
      return row;
    }),
  );
}

function cellOf({ text, kind = '', share }: Cell): HTMLElement {
  const cell = document.createElement('td');
  cell.className = kind;
  cell.textContent = text;
  if (share === undefined) return cell;
  const bar = document.createElement('span');
  bar.className = 'bar';
  bar.style.setProperty('--share', String(Math.min(Math.max(share, 0), 1)));
  cell.append(bar);
  return cell;
}

/** Draws the calls a second of the last two minutes. */
function draw(history: readonly number[]): void {
  const [width, height] = [120, 32];
  const most = Math.max(...history, 1);
  const first = width - (history.length - 1);
  const points = history.map((value, index) => {
    const y = height - 1 - (value / most) * (height - 3);
    return `${first + index},${y.toFixed(2)}`;
  });
  byId('line').setAttribute('points', points.join(' '));
  byId('area').setAttribute(
    'points',
    points.length === 0 ? '' : [`${first},${height}`, ...points, `${width},${height}`].join(' '),
  );
}

function paint(health: Health | 'unknown'): void {
  document.body.dataset['health'] = health;
  const circle = `<circle cx="8" cy="8" r="7" fill="${colours[health]}"/>`;
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${circle}</svg>`;
  byId('icon').setAttribute('href', `data:image/svg+xml,${encodeURIComponent(icon)}`);
}

// The whole

function headline({ health, warnings }: Status): string {
  if (health === 'down') return 'No new clients are served';
  if (health === 'ok') return 'All is well';
  const errors = warnings.filter(({ level }) => level === 'error').length;
  return errors > 0 ? plural(errors, 'problem') : plural(warnings.length, 'warning');
}

function summary({ workers, wantedWorkers, clients, daemons }: Status): string {
  const ready = workers.filter(({ state }) => state === 'ready').length;
  const parts = [
    `${ready} of ${plural(wantedWorkers, 'worker')} ready`,
    plural(clients.total, 'client'),
    plural(daemons.filter(({ isThere }) => isThere !== false).length, 'daemon'),
  ];
  return parts.join(' · ');
}

function showWarnings({ warnings }: Status): void {
  const list = byId('warnings');
  list.hidden = warnings.length === 0;
  list.replaceChildren(
    ...warnings.map(({ level, text }) => {
      const item = document.createElement('li');
      item.className = level;
      item.textContent = text;
      return item;
    }),
  );
}

function showTiles({ clients, calls, bytesPerSecond }: Status): void {
  const waiting = sum(Object.values(clients.byTransport).map((states) => states.waiting));
  say('clients', count(clients.total));
  say(
    'clients-note',
    waiting > 0 ? `${count(waiting)} waiting` : `of ${count(clients.max)} at most`,
  );
  say('rate', rate(calls.perSecond));
  const { errorsPerSecond: errors } = calls;
  say('rate-note', errors > 0 ? `${rate(errors)} errors a second` : 'no errors');
  byId('rate-note').classList.toggle('bad', errors > 0);
  draw(calls.history);
  say('latency', duration(calls.latency.p50));
  say('latency-note', `99 % within ${duration(calls.latency.p99)}`);
  say('in-flight', count(calls.inFlight));
  say('in-flight-note', calls.held > 0 ? `${count(calls.held)} held back` : 'none held back');
  say('traffic', `${bytes(bytesPerSecond.in + bytesPerSecond.out)}/s`);
  say('traffic-note', `${bytes(bytesPerSecond.in)} in, ${bytes(bytesPerSecond.out)} out`);
}

function workerRow(worker: WorkerStatus): readonly Cell[] {
  const { slot, pid, generation, state, clients, cpu, residentMemory, lag } = worker;
  return [
    { text: String(slot) },
    { text: String(pid), kind: 'quiet wide' },
    { text: state, kind: state === 'ready' ? '' : 'quiet' },
    { text: String(generation), kind: 'number wide' },
    { text: count(clients), kind: 'number' },
    cpu === null
      ? { text: '–', kind: 'number' }
      : { text: `${(cpu * 100).toFixed(0)} %`, kind: 'number', share: cpu },
    { text: duration(lag), kind: lag !== null && lag >= 1 ? 'number wide bad' : 'number wide' },
    { text: bytes(residentMemory), kind: 'number' },
  ];
}

function troubleOf({ isThere, reopening }: DaemonStatus): string | null {
  if (reopening > 0) return `away, ${count(reopening)} wait`;
  return isThere === false ? 'no socket' : null;
}

function daemonRow(status: DaemonStatus): readonly Cell[] {
  const { daemon, connections, callsPerSecond, latency, restarts } = status;
  const trouble = troubleOf(status);
  const failures = sum(Object.values(status.failures));
  return [
    trouble === null ? { text: daemon } : { text: `${daemon} (${trouble})`, kind: 'bad' },
    { text: count(connections), kind: 'number' },
    { text: rate(callsPerSecond), kind: 'number' },
    { text: duration(latency.p50), kind: 'number wide' },
    { text: duration(latency.p99), kind: 'number' },
    { text: count(failures), kind: failures > 0 ? 'number bad' : 'number quiet' },
    { text: count(restarts), kind: restarts > 0 ? 'number wide' : 'number wide quiet' },
  ];
}

function showTables({ workers, daemons, clients }: Status): void {
  fill('workers', workers.map(workerRow), 'There are none.');
  fill('daemons', daemons.map(daemonRow), 'None was found, and no client has asked for one.');
  fill(
    'transports',
    Object.entries(clients.byTransport).map(([transport, { serving, login, waiting }]) => [
      { text: transport.toUpperCase() },
      { text: count(serving), kind: 'number' },
      { text: count(login), kind: 'number' },
      { text: count(waiting), kind: waiting > 0 ? 'number bad' : 'number' },
      {
        text: count(clients.accepted[transport as keyof typeof clients.accepted]),
        kind: 'number quiet',
      },
    ]),
    '',
  );
}

const refusals: Readonly<Record<keyof Status['clients']['refused'], string>> = {
  queue_full: 'queue full',
  gave_way: 'evicted',
  login: 'login failed',
  tls: 'TLS failed',
  login_timeout: 'login too slow',
};

/** What happened since the start, as pairs of a name and a value. */
function history(
  status: Status,
): readonly (readonly [name: string, value: string, bad: boolean])[] {
  const { lastReload, now, reloads, restarts, clients, certificates, drainingGenerations } = status;
  const reload =
    lastReload === null
      ? 'none yet'
      : `${lastReload.result === 'success' ? 'succeeded' : 'failed'} ${span(now - lastReload.at)} ago`;
  const refused = Object.entries(clients.refused).filter(([, number]) => number > 0);
  const restarted = Object.entries(restarts).filter(([, number]) => number > 0);
  const listed = (pairs: readonly (readonly [string, number])[]): string =>
    pairs.length === 0
      ? 'none'
      : pairs.map(([name, number]) => `${count(number)} ${name}`).join(', ');
  return [
    ['Process', String(status.pid), false],
    ['Last reload', reload, lastReload?.result === 'failure'],
    [
      'Reloads',
      `${count(reloads.success)} good, ${count(reloads.failure)} failed`,
      reloads.failure > 0,
    ],
    [
      'Generation',
      drainingGenerations > 0
        ? `${status.generation}, ${plural(drainingGenerations, 'older one')} draining`
        : String(status.generation),
      false,
    ],
    ['Workers replaced', listed(restarted), restarted.length > 0],
    [
      'Clients refused',
      listed(refused.map(([why, number]) => [refusals[why as keyof typeof refusals], number])),
      false,
    ],
    ...(certificates === null
      ? []
      : [
          [
            'Certificate',
            `expires in ${span(certificates.server - now)}`,
            certificates.server < now,
          ] as const,
        ]),
  ];
}

function showHistory(status: Status): void {
  byId('history').replaceChildren(
    ...history(status).flatMap(([name, value, bad]) => {
      const term = document.createElement('dt');
      term.textContent = name;
      const text = document.createElement('dd');
      text.textContent = value;
      if (bad) text.className = 'bad';
      return [term, text];
    }),
  );
}

function show(status: Status): void {
  const { health, version, startedAt, now } = status;
  paint(health);
  const line = headline(status);
  say('headline', line);
  document.title = `${line} · virtproxyd on ${location.hostname}`;
  say('summary', summary(status));
  say('identity', `virtproxyd ${version} on ${location.hostname}`);
  say('age', `up ${span(now - startedAt)}`);
  showWarnings(status);
  showTiles(status);
  showTables(status);
  showHistory(status);
}

let answeredAt = Date.now();

function showSilence(): void {
  paint('unknown');
  say('headline', 'No answer');
  say('age', `for ${span(Date.now() - answeredAt)}; what is shown is from before that`);
  document.title = `No answer · virtproxyd on ${location.hostname}`;
}

async function refresh(): Promise<void> {
  try {
    const answer = await fetch('status.json', { signal: AbortSignal.timeout(patience) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show((await answer.json()) as Status);
    answeredAt = Date.now();
  } catch {
    showSilence();
  }
}

async function watch(): Promise<void> {
  // Nobody looks at a page in the background.
  if (!document.hidden) await refresh();
  setTimeout(() => void watch(), interval);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void refresh();
});
void watch();
