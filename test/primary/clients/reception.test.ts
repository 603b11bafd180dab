import { closeSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import type { PrimaryMessage } from '../../../lib/control/messages.js';
import type { ClientLimits } from '../../../lib/primary/clients/client-limits.js';
import { Reception } from '../../../lib/primary/clients/reception.js';
import type { Connection } from '../../../lib/primary/listeners/connection.js';
import type { Listener } from '../../../lib/primary/listeners/listener.js';
import type { WorkerProcess } from '../../../lib/primary/workers/worker-process.js';
import { headerLength } from '../../../lib/rpc/frame.js';
import { socketPair } from '../../native/sockets.js';
import { frameOf } from '../../peers/frame-socket.js';
import { until } from '../../peers/waiting.js';
import { recordedLog } from '../recorded-log.js';

/** A worker as reception sees it: what it was sent. */
interface FakeWorker {
  readonly received: PrimaryMessage[];
  readonly process: WorkerProcess;
}

function fakeWorker(): FakeWorker {
  const received: PrimaryMessage[] = [];
  const process = {
    onClientGone: () => undefined,
    send: (message: PrimaryMessage) => received.push(message),
  } as unknown as WorkerProcess;
  return { received, process };
}

describe('primary/clients/reception', () => {
  let worker: FakeWorker;
  /** Null: no worker is ready. */
  let ready: FakeWorker | null;
  let handed: number[];
  let closed: Set<number>;
  let reception: Reception;
  let lines: string[];
  const open = new Set<number>();

  const limits: ClientLimits = {
    maxClients: 100,
    maxAnonymousClients: 0,
    maxQueuedClients: 100,
    loginTimeout: 60_000,
  };

  const receive = (changes: Partial<ClientLimits> = {}): void => {
    const recorded = recordedLog();
    lines = recorded.lines;
    reception = new Reception(
      { ...limits, ...changes },
      (introduction) => {
        if (ready === null) return null;
        handed.push(introduction.id);
        return ready.process;
      },
      recorded.log,
      () => undefined,
    );
  };

  beforeEach(() => {
    worker = fakeWorker();
    ready = worker;
    handed = [];
    closed = new Set();
  });
  afterEach(() => {
    reception.close();
    for (const fd of open) closeSync(fd);
    open.clear();
  });

  const listener = (auth: 'none' | 'sasl'): Listener =>
    ({
      settings: { transport: 'tcp', auth, readOnly: false, name: 'test', role: 'tcp' },
    }) as unknown as Listener;

  /** Connects a client over TCP; gives its end, and the number it is known by. */
  const connect = (auth: 'none' | 'sasl' = 'none', address = '192.0.2.1'): [number, number] => {
    const [theirs, ours] = socketPair();
    open.add(theirs).add(ours);
    const id = ++lastId;
    const its = { family: 'ipv4', address, port: 4711 } as const;
    const connection: Connection = {
      fd: ours,
      close: () => {
        closed.add(id);
        if (open.delete(ours)) closeSync(ours);
      },
      remoteAddress: () => its,
      localAddress: () => its,
    };
    reception.onConnection(listener(auth), connection);
    return [theirs, id];
  };
  let lastId = 0;
  beforeEach(() => (lastId = 0));

  const leave = (fd: number): void => {
    open.delete(fd);
    closeSync(fd);
  };
  const take = (id: number): void => reception.onWorkerNews(worker.process, { kind: 'taken', id });

  it('hands each client over, and closes its copy once the worker has its own', () => {
    receive();
    const [, id] = connect();
    expect(handed).to.deep.equal([id]);
    expect(reception.clients.size).to.equal(1);
    expect([...closed]).to.deep.equal([]);
    take(id);
    expect([...closed]).to.deep.equal([id]);
    expect(reception.accepted.tcp).to.equal(1);
  });

  it('lets clients wait for a worker, first come, first served', () => {
    receive();
    ready = null;
    const ids = [connect()[1], connect()[1]];
    expect(reception.queue).to.have.lengthOf(2);
    ready = worker;
    reception.serveWaiting();
    expect(handed).to.deep.equal(ids);
    expect(reception.size).to.equal(2);
  });

  it('lets clients wait at max_clients until one leaves', () => {
    receive({ maxClients: 1 });
    const [, first] = connect();
    const [, second] = connect();
    expect(handed).to.deep.equal([first]);
    reception.onWorkerNews(worker.process, { kind: 'closed', id: first, refusal: 'login' });
    expect(handed).to.deep.equal([first, second]);
    expect(reception.refused.login).to.equal(1);
  });

  it('does not believe a worker that speaks of the client of another', () => {
    receive();
    const [, id] = connect();
    reception.onWorkerNews(fakeWorker().process, { kind: 'closed', id });
    expect(reception.clients.size).to.equal(1);
  });

  it('turns away who is one too many in the queue, and says so', async () => {
    receive({ maxQueuedClients: 2 });
    ready = null;
    const ids = [connect()[1], connect()[1], connect()[1]];
    await until(() => closed.size > 0, { what: 'one to be turned away' });
    expect([...closed]).to.deep.equal([ids[0]]);
    expect(reception.refused.queue_full).to.equal(1);
    expect(lines).to.have.lengthOf(1);
    expect(lines[0]).to.include('max_queued_clients (2) wait: turned away 1 so far');
  });

  it('gives what a worker that died had not taken to the next, before those that wait', () => {
    receive();
    const [, taken] = connect();
    const [, onItsWay] = connect();
    take(taken);
    ready = null;
    const [, waiting] = connect();
    ready = fakeWorker();
    reception.onWorkerLost(worker.process);
    expect(handed).to.deep.equal([taken, onItsWay, onItsWay, waiting]);
    expect(reception.clients.size).to.equal(2);
  });

  it('lets strangers wait until they have said something', async () => {
    receive({ maxAnonymousClients: 1 });
    const [, first] = connect('sasl');
    take(first);
    const [, silent] = connect('sasl');
    const [speaker, second] = connect('sasl');
    writeSync(speaker, frameOf({ procedure: 1 }).subarray(0, headerLength));
    reception.onWorkerNews(worker.process, { kind: 'closed', id: first });
    await until(() => handed.includes(second), { what: 'the one who speaks to be let in' });
    expect(handed).to.deep.equal([first, second]);
    expect(reception.queue.map(({ introduction: { id } }) => id)).to.deep.equal([silent]);
  });

  it('has the worker of one who has been silent evict it for one who speaks', async () => {
    receive({ maxAnonymousClients: 1 });
    const [, first] = connect('sasl');
    take(first);
    const [speaker, second] = connect('sasl');
    writeSync(speaker, frameOf({ procedure: 1 }));
    await until(() => worker.received.length > 0, { what: 'the silent one to be asked' });
    expect(worker.received[0]).to.include({ kind: 'evict', id: first, stage: 'silent' });
    reception.onWorkerNews(worker.process, { kind: 'closed', id: first, refusal: 'gave_way' });
    await until(() => handed.includes(second), { what: 'the one who speaks to be let in' });
    expect(reception.refused.gave_way).to.equal(1);
    expect(lines.join('\n')).to.include('max_anonymous_clients (1) have not logged in');
  });

  it('counts a client no longer as a stranger once it has logged in', () => {
    receive({ maxAnonymousClients: 1 });
    const [, first] = connect('sasl');
    reception.onWorkerNews(worker.process, {
      kind: 'loggedIn',
      id: first,
      saslUserName: 'a',
      x509Name: null,
      readOnly: false,
    });
    expect(reception.clients.anonymousSize).to.equal(0);
    const [, second] = connect('sasl');
    expect(handed).to.deep.equal([first, second]);
  });

  it('forgets who leaves while he waits', async () => {
    receive({ maxAnonymousClients: 1 });
    take(connect('sasl')[1]);
    const [theirs, id] = connect('sasl');
    leave(theirs);
    await until(() => closed.has(id), { what: 'the one who left to be closed' });
    expect(reception.queue).to.have.lengthOf(0);
  });

  it('serves all that wait, whatever the limits, to be able to end', async () => {
    receive({ maxClients: 1 });
    const ids = [connect()[1], connect()[1], connect()[1]];
    await reception.serveAll();
    expect(handed).to.deep.equal(ids);
  });

  it('turns whoever waits away when it closes', () => {
    receive();
    ready = null;
    const [, id] = connect();
    reception.close();
    expect([...closed]).to.deep.equal([id]);
  });
});
