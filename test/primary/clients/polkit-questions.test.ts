import { expect } from 'chai';
import type { PolkitRequest, PolkitVerdict } from '../../../lib/auth/polkit.js';
import type { PrimaryMessage } from '../../../lib/control/messages.js';
import { ClientRegistry, type Client } from '../../../lib/primary/clients/client-registry.js';
import { PolkitQuestions } from '../../../lib/primary/clients/polkit-questions.js';
import type { WorkerProcess } from '../../../lib/primary/workers/worker-process.js';
import { recordedLog } from '../recorded-log.js';
import { clientOf, peer } from './client.js';

interface FakeWorker {
  readonly told: PrimaryMessage[];
  readonly process: WorkerProcess;
}

function fakeWorker(pid: number): FakeWorker {
  const told: PrimaryMessage[] = [];
  const send = (message: PrimaryMessage): number => told.push(message);
  const process = { pid, send, onClientGone: () => undefined } as unknown as WorkerProcess;
  return { told, process };
}

describe('primary/clients/polkit-questions', () => {
  let clients: ClientRegistry;
  let asked: PolkitRequest[];
  let answer: (verdict: PolkitVerdict) => void;
  let questions: PolkitQuestions;
  let lines: string[];
  let worker: FakeWorker;

  beforeEach(() => {
    clients = new ClientRegistry();
    asked = [];
    worker = fakeWorker(1);
    const recorded = recordedLog();
    lines = recorded.lines;
    questions = new PolkitQuestions(clients, () => 5000, recorded.log, {
      check: (request) => {
        asked.push(request);
        return new Promise((resolve) => (answer = resolve));
      },
    });
  });

  function add(changes: Partial<Client['introduction']> = {}): Client {
    const introduction = { id: clients.nextId(), auth: 'polkit' as const, ...changes };
    const client = clientOf(introduction, { worker: worker.process, stage: 'login' });
    clients.add(client);
    return client;
  }

  /** Asks, and resolves when polkit was. */
  async function ask(client: Client): Promise<{ readonly answered: Promise<void> }> {
    const answered = questions.ask(worker.process, client.introduction.id);
    const deadline = Date.now() + 5000;
    while (asked.length === 0 && Date.now() < deadline) await new Promise(setImmediate);
    return { answered };
  }

  it('tells polkit what the kernel said of the client', async () => {
    const { answered } = await ask(add());
    answer({ authorized: true });
    await answered;
    const { signal, ...request } = asked[0]!;
    expect(signal.aborted).to.equal(false);
    expect(request).to.deep.equal({
      action: 'org.libvirt.unix.manage',
      pid: 4711,
      startTime: 42n,
      uid: 1000,
      timeoutMs: 5000,
    });
    expect(worker.told).to.deep.equal([{ kind: 'polkit', id: 1, refusal: null }]);
  });

  it('asks for less on a read-only socket, and remembers whom polkit let in', async () => {
    const client = add({ readOnly: true });
    const { answered } = await ask(client);
    expect(asked[0]?.action).to.equal('org.libvirt.unix.monitor');
    expect(questions.hasGranted(client)).to.equal(false);
    answer({ authorized: true });
    await answered;
    expect(questions.hasGranted(client)).to.equal(true);
  });

  it('passes a refusal on', async () => {
    const client = add();
    const { answered } = await ask(client);
    answer({ authorized: false, code: 'denied', reason: 'A rule says no.' });
    await answered;
    expect(worker.told).to.deep.equal([{ kind: 'polkit', id: 1, refusal: 'A rule says no.' }]);
    expect(questions.hasGranted(client)).to.equal(false);
  });

  it('does not ask about a process that has ended', async () => {
    await questions.ask(
      worker.process,
      add({ local: { ...peer, startTime: null } }).introduction.id,
    );
    expect(asked).to.deep.equal([]);
    const refusal = 'its process ended before it logged in';
    expect(worker.told).to.deep.equal([{ kind: 'polkit', id: 1, refusal }]);
  });

  it('withdraws the question of a client that leaves', async () => {
    const client = add();
    const { answered } = await ask(client);
    clients.remove(client);
    expect(asked[0]?.signal.aborted).to.equal(true);
    answer({ authorized: true });
    await answered;
    expect(worker.told).to.deep.equal([]);
    expect(questions.hasGranted(client)).to.equal(false);
  });

  describe('refuses and logs', () => {
    const cases: Record<string, [question: () => [WorkerProcess, number], line: RegExp]> = {
      'a client there is not': [() => [worker.process, 99], /client 99, which it does not have/],
      "another worker's client": [
        () => [fakeWorker(2).process, add().introduction.id],
        /worker 2 asked polkit about client 1, which it does not have: refused/,
      ],
      'a client of a socket without polkit': [
        () => [worker.process, add({ auth: 'none' }).introduction.id],
        /whose socket does not ask for polkit/,
      ],
    };
    for (const [what, [question, line]] of Object.entries(cases)) {
      it(what, async () => {
        await questions.ask(...question());
        expect(asked).to.deep.equal([]);
        expect(worker.told).to.deep.equal([]);
        expect(lines).to.have.length(1);
        expect(lines[0])
          .to.match(/^warning: /)
          .and.match(line);
      });
    }

    it('a second question about one client', async () => {
      const client = add();
      const { answered } = await ask(client);
      await questions.ask(worker.process, client.introduction.id);
      expect(asked).to.have.length(1);
      expect(lines[0]).to.match(/about whom polkit is being asked already/);
      answer({ authorized: true });
      await answered;
    });
  });
});
