import { expect } from 'chai';
import type { Endpoint } from '../../../lib/worker/daemon/directory.js';
import { ConnectError, TimeoutError } from '../../../lib/worker/daemon/errors.js';
import { DaemonRestarts, type Returning } from '../../../lib/worker/daemon/restarts.js';
import { recordedLog } from '../../primary/recorded-log.js';
import { until } from '../../peers/waiting.js';

const endpoint: Endpoint = {
  driver: 'qemu',
  daemon: 'virtqemud',
  path: '/run/virtqemud-sock',
  readOnly: false,
};
const missing = Object.assign(new Error('gone'), { code: 'ENOENT', errno: -2 });
const notThereYet = new ConnectError(endpoint.daemon, endpoint.path, missing);

/** A link whose attempts end as the test says. */
class ScriptedLink implements Returning {
  attempts = 0;
  private settle: (error: Error | null) => void = () => undefined;

  constructor(readonly isUrgent = true) {}

  attempt(): Promise<void> {
    this.attempts++;
    return new Promise((resolve, reject) => {
      this.settle = (error) => (error === null ? resolve() : reject(error));
    });
  }

  /** Ends the attempt under way. */
  end(error: Error | null = null): void {
    this.settle(error);
  }
}

/** One whose attempts all end at once, with these errors in turn, and the last for ever. */
function failing(...errors: readonly (Error | null)[]): Returning & { attempts: number } {
  return {
    isUrgent: true,
    attempts: 0,
    attempt() {
      const error = errors[Math.min(this.attempts++, errors.length - 1)] ?? null;
      return error === null ? Promise.resolve() : Promise.reject(error);
    },
  };
}

const neverAborted = new AbortController().signal;

describe('the restarts of daemons', () => {
  let restarts: DaemonRestarts;
  let lines: string[];

  beforeEach(() => {
    const recorded = recordedLog();
    ({ lines } = recorded);
    restarts = new DaemonRestarts({ patience: 5000, maxAtOnce: 2 }, recorded.log);
  });

  it('try a link until its daemon is there', async () => {
    const link = failing(notThereYet, notThereYet, null);
    await restarts.reach(link, 5000, neverAborted);
    expect(link.attempts).to.equal(3);
  });

  const endings: readonly (readonly [title: string, error: Error, patience: number])[] = [
    ['once if there is no patience', notThereYet, 0],
    ['once if it does not answer', new TimeoutError(endpoint, 1), 5000],
    ['once if it refuses', new Error('not you'), 5000],
  ];
  for (const [title, error, patience] of endings) {
    it(`try a daemon ${title}`, async () => {
      const link = failing(error);
      const failure: unknown = await restarts
        .reach(link, patience, neverAborted)
        .catch((reason: unknown) => reason);
      expect(failure).to.equal(error);
      expect(link.attempts).to.equal(1);
    });
  }

  it('give a daemon up that has stayed away for longer than they have patience', async () => {
    const link = failing(notThereYet);
    const startedAt = performance.now();
    const failure: unknown = await restarts
      .reach(link, 60, neverAborted)
      .catch((reason: unknown) => reason);
    expect(failure).to.equal(notThereYet);
    expect(link.attempts).to.be.greaterThan(1);
    // Timers may be a millisecond early.
    expect(performance.now() - startedAt).to.be.at.least(58);
  });

  it('let as many links at a time as they may, first those whose calls wait', async () => {
    const links = [true, true, false, true].map((isUrgent) => new ScriptedLink(isUrgent));
    const [first, second, patient, urgent] = links as [
      ScriptedLink,
      ScriptedLink,
      ScriptedLink,
      ScriptedLink,
    ];
    const attempts = (): number[] => links.map((link) => link.attempts);
    const all = [first, second, patient].map((link) => restarts.reach(link, 5000, neverAborted));
    // The patient one waits up to 250 ms before it asks, and then has to queue.
    await new Promise((resolve) => setTimeout(resolve, 260));
    all.push(restarts.reach(urgent, 5000, neverAborted));
    await until(() => second.attempts === 1, { what: 'two attempts' });
    expect(attempts()).to.eql([1, 1, 0, 0]);
    first.end();
    await until(() => urgent.attempts === 1, { what: 'the urgent attempt' });
    expect(attempts()).to.eql([1, 1, 0, 1]);
    second.end();
    await until(() => patient.attempts === 1, { what: 'the patient attempt' });
    urgent.end();
    patient.end();
    await Promise.all(all);
  });

  it('let nobody in for a link that left while it queued', async () => {
    const [first, second, leaving, last] = Array.from({ length: 4 }, () => new ScriptedLink()) as [
      ScriptedLink,
      ScriptedLink,
      ScriptedLink,
      ScriptedLink,
    ];
    const left = new AbortController();
    const others = [first, second].map((link) => restarts.reach(link, 5000, neverAborted));
    const queued = restarts
      .reach(leaving, 5000, left.signal)
      .catch((reason: unknown) => String(reason));
    others.push(restarts.reach(last, 5000, neverAborted));
    left.abort(new Error('the client left'));
    expect(await queued).to.equal('Error: the client left');
    first.end();
    await until(() => last.attempts === 1, { what: 'the last one to be let in' });
    expect(leaving.attempts).to.equal(0);
    second.end();
    last.end();
    await Promise.all(others);
  });

  const lineBegins = `warning: virtqemud at '/run/virtqemud-sock' went away (End of file): `;
  const told = (): Promise<unknown> => until(() => lines.length > 0, { what: 'the line' });

  it('have one line for all clients that lost a daemon, with what became of their calls', async () => {
    const one = restarts.onLost(endpoint, 'End of file');
    expect(restarts.onLost(endpoint, 'End of file')).to.equal(one);
    restarts.onReopening(one);
    restarts.onReopening(one);
    restarts.onCalls(one, { failed: 1 });
    restarts.onCalls(one, { repeated: 3 });
    restarts.onSettled(one, 'left');
    restarts.onSettled(one, 'back');
    await told();
    expect(lines).to.have.length(1);
    expect(lines[0]).to.contain(lineBegins);
    expect(lines[0]).to.match(/: 2 clients, 3 calls repeated, 1 failed, back after [\d.]+ s;/);
  });

  it('say of a daemon that nobody asks for that the next call will', async () => {
    restarts.onLost(endpoint, 'End of file');
    await told();
    expect(lines[0]).to.contain(
      `${lineBegins}1 clients, 0 calls repeated, 0 failed, opened again at the next call`,
    );
  });

  it('say of a daemon that has stayed away for how long', async () => {
    const restart = restarts.onLost(endpoint, 'End of file');
    restarts.onReopening(restart);
    restarts.onSettled(restart, 'away');
    await told();
    expect(lines[0]).to.match(/ 0 failed, not back within [\d.]+ s;/);
  });

  it('have another line for another daemon, and for the next restart', async () => {
    const first = restarts.onLost(endpoint, 'End of file');
    restarts.onLost({ ...endpoint, path: '/run/other-sock' }, 'End of file');
    await until(() => lines.length === 2, { what: 'both lines' });
    expect(restarts.onLost(endpoint, 'End of file')).not.to.equal(first);
    await until(() => lines.length === 3, { what: 'the next line' });
  });
});
