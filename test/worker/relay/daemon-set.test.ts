import { expect } from 'chai';
import type { PlacesConfiguration } from '../../../lib/config/daemon-places.js';
import { callOf, encodeReply, headerLength, procedureOf } from '../../../lib/rpc/frame.js';
import {
  authType,
  encodeAuthList,
  openReadOnly,
  procedure,
  readOpenArguments,
} from '../../../lib/rpc/session-messages.js';
import type { ByteStream } from '../../../lib/transport/byte-stream.js';
import { ownConnector } from '../../../lib/worker/daemon/connector.js';
import { DaemonDirectory } from '../../../lib/worker/daemon/directory.js';
import type { DaemonLink } from '../../../lib/worker/daemon/link.js';
import { DaemonRestarts } from '../../../lib/worker/daemon/restarts.js';
import { DaemonSet, type DaemonSetOwner } from '../../../lib/worker/relay/daemon-set.js';
import { frameOf } from '../../peers/frame-socket.js';
import { until } from '../../peers/waiting.js';
import { recordedLog } from '../../primary/recorded-log.js';
import { ScriptedStream } from '../scripted-stream.js';

const hostname = frameOf({ procedure: 59 });
const poolByName = frameOf({ procedure: 84 });
const networkByName = frameOf({ procedure: 46 });
const unknown = frameOf({ procedure: 9999 });

/** A daemon that lets itself be opened and answers nothing else. */
function willingDaemon(): ScriptedStream {
  const stream = new ScriptedStream();
  stream.onFrame = (frame) => {
    const isList = procedureOf(frame, 0) === procedure.authList;
    const payload = isList ? encodeAuthList([authType.none]) : Buffer.alloc(0);
    // As from a socket: never from within the write.
    setImmediate(() => stream.arrive(encodeReply(callOf(frame, 0), payload)));
  };
  return stream;
}

const refusing = (code: string): Error => Object.assign(new Error(code), { code, errno: -1 });

describe('the daemons of one client', () => {
  let set: DaemonSet;
  /** By the daemons' names: what connecting to them fails with. */
  let failures: Map<string, Error>;
  /** Those that were connected to, by the paths of their sockets. */
  let streams: Map<string, ScriptedStream>;
  let opened: string[];
  let failed: [driver: string, error: unknown][];

  /** Beside a client that opened `driver`. */
  async function open(driver = 'qemu', flags = 0): Promise<void> {
    const directory = new DaemonDirectory(
      {
        mode: 'system',
        routes: {},
        paths: { daemonDirectory: '/run' } as PlacesConfiguration['paths'],
      },
      (endpoint) => ownConnector.exists(endpoint),
    );
    const { log } = recordedLog();
    const connect = ({ daemon, path }: { daemon: string; path: string }): Promise<ByteStream> => {
      const failure = failures.get(daemon);
      if (failure !== undefined) return Promise.reject(failure);
      const stream = willingDaemon();
      streams.set(path, stream);
      return Promise.resolve(stream);
    };
    const owner: Pick<DaemonSetOwner, 'opened' | 'failedToOpen' | 'turnEnded'> = {
      opened: (link) => opened.push(link.driver),
      failedToOpen: (link, error) => failed.push([link.driver, error]),
      turnEnded: (link) => link.flush(),
    };
    const restarts = new DaemonRestarts({ patience: 0, maxAtOnce: 1 }, log);
    set = new DaemonSet(
      {
        daemons: directory,
        connect,
        identity: () => [],
        openTimeoutSeconds: 5,
        restarts,
        log,
        meter: null,
      },
      owner as DaemonSetOwner,
    );
    const endpoint = directory.endpoint(driver, (flags & openReadOnly) !== 0);
    await set.open(endpoint, { name: `${driver}:///system`, flags });
  }

  const find = (frame: Buffer): DaemonLink => set.find(frame, 0);
  const driverOf = (frame: Buffer): string => find(frame).driver;
  const drivers = (): string[] => set.all.map((link) => link.driver);

  beforeEach(() => {
    failures = new Map();
    streams = new Map();
    opened = [];
    failed = [];
  });

  afterEach(() => set.close());

  it('begin with the one that was opened, which has calls that none of the others serves', async () => {
    await open();
    expect([driverOf(hostname), driverOf(unknown)]).to.eql(['qemu', 'qemu']);
    expect(drivers()).to.eql(['qemu']);
    expect(set.hasSecondaries).to.be.false;
  });

  it('get another at the first call for it, and only then', async () => {
    await open();
    expect(set.known(poolByName, 0)).to.equal(null);
    const storage = find(poolByName);
    expect([storage.driver, storage.role, storage.state]).to.eql([
      'storage',
      'secondary',
      'opening',
    ]);
    expect(find(poolByName)).to.equal(storage);
    expect(set.known(poolByName, 0)).to.equal(storage);
    expect(driverOf(networkByName)).to.equal('network');
    expect(set.hasSecondaries).to.be.true;
    await until(() => opened.length === 2, { what: 'both to be open' });
    expect(drivers()).to.eql(['qemu', 'storage', 'network']);
    expect(storage.state).to.equal('open');
  });

  it('are opened read-only, by their read-only sockets, for a client that is', async () => {
    await open('qemu', openReadOnly);
    find(poolByName);
    await until(() => opened.length === 1, { what: 'it to be open' });
    expect([...streams.keys()]).to.eql(['/run/virtqemud-sock-ro', '/run/virtstoraged-sock-ro']);
    const asked = streams.get('/run/virtstoraged-sock-ro')!.frames[1]!;
    expect(readOpenArguments(asked.subarray(headerLength))).to.eql({
      name: 'storage:///system',
      flags: openReadOnly,
    });
  });

  it('are one only where the driver serves everything itself', async () => {
    await open('vbox');
    expect([driverOf(poolByName), driverOf(networkByName)]).to.eql(['vbox', 'vbox']);
    expect(set.known(poolByName, 0)?.driver).to.equal('vbox');
    expect(set.hasSecondaries).to.be.false;
  });

  it('leave calls to the first where another is not on this host', async () => {
    await open();
    failures.set('virtstoraged', refusing('ENOENT'));
    find(poolByName);
    await until(() => failed.length === 1, { what: 'the failure' });
    expect(failed).to.eql([['storage', null]]);
    expect(driverOf(poolByName)).to.equal('qemu');
    expect(set.known(poolByName, 0)?.driver).to.equal('qemu');
    expect(drivers()).to.eql(['qemu']);
  });

  it('are tried anew at the next call where one could not be opened', async () => {
    await open();
    failures.set('virtstoraged', refusing('ECONNREFUSED'));
    const first = find(poolByName);
    await until(() => failed.length === 1, { what: 'the failure' });
    expect(String(failed[0]![1])).to.contain('Failed to connect socket');
    expect(drivers()).to.eql(['qemu']);
    failures.clear();
    expect(find(poolByName)).not.to.equal(first);
    await until(() => opened.length === 1, { what: 'it to be open' });
  });

  it('forget one that is closed for good, but never the first', async () => {
    await open();
    const storage = find(poolByName);
    set.forget(storage);
    expect(drivers()).to.eql(['qemu']);
    expect(find(poolByName)).not.to.equal(storage);
    set.forget(find(hostname));
    expect(drivers()).to.eql(['qemu', 'storage']);
    storage.close();
  });

  it('are closed together, and nobody is told of an opening that ends so', async () => {
    await open();
    const links = [find(hostname), find(poolByName), find(networkByName)];
    set.close();
    expect(links.map((link) => link.state)).to.eql(['closed', 'closed', 'closed']);
    await new Promise(setImmediate);
    expect([opened, failed]).to.eql([[], []]);
    for (const stream of streams.values()) expect(stream.isDestroyed).to.be.true;
  });

  it('are not opened for a client that has left meanwhile', async () => {
    await open();
    set.close();
    const endpoint = {
      driver: 'qemu',
      daemon: 'virtqemud',
      path: '/run/virtqemud-sock',
      readOnly: false,
    };
    const refusal: unknown = await set
      .open(endpoint, { name: 'qemu:///system', flags: 0 })
      .catch((error: unknown) => error);
    expect(String(refusal)).to.contain('client socket is closed');
  });
});
