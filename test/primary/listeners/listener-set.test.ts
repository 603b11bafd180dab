import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ListenError } from '../../../lib/primary/listeners/listen-error.js';
import type { Connection } from '../../../lib/primary/listeners/connection.js';
import type { PlannedListener } from '../../../lib/primary/listeners/listener-plan.js';
import { ListenerSet } from '../../../lib/primary/listeners/listener-set.js';
import { until } from '../../peers/waiting.js';
import { recordedLog } from '../recorded-log.js';

describe('primary/listeners/listener-set', () => {
  let directory: string;
  let set: ListenerSet;
  let accepted: { name: string; connection: Connection }[];
  const clients: Socket[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'set-'));
    accepted = [];
    set = new ListenerSet(
      {
        onConnection: (listener, connection) => {
          accepted.push({ name: listener.settings.name, connection });
        },
        onAcceptError: (_, error) => {
          throw error;
        },
      },
      recordedLog().log,
    );
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
    for (const { connection } of accepted) connection.close();
    set.close();
    rmSync(directory, { recursive: true });
  });

  const path = (name: string): string => join(directory, name);
  const planned = (
    name: string,
    { mode = 0o600, role = 'rw' }: { mode?: number; role?: 'rw' | 'admin' } = {},
  ): PlannedListener => ({
    settings: {
      role,
      isActivated: false,
      transport: 'unix',
      auth: 'none',
      readOnly: false,
      name: path(name),
      backlog: 5,
    },
    place: 'virtproxyd.conf:3: unix_sock_dir',
    file: { path: path(name), mode, group: null },
  });
  const connect = async (name: string): Promise<void> => {
    const client = createConnection(path(name));
    clients.push(client);
    await once(client, 'connect');
  };
  const acceptedOn = (name: string, count = 1): Promise<unknown> =>
    until(() => accepted.filter((one) => one.name === path(name)).length === count, {
      what: `${count} connections on ${name}`,
    });
  const names = (): string[] => [...set.all].map(({ settings: { name } }) => name);
  const change = async (...plan: PlannedListener[]): Promise<void> => {
    await set.prepare(plan);
    set.commit();
  };

  it('opens what a plan has, gives the rest up, and keeps what is in both', async () => {
    await change(planned('a'), planned('b'));
    set.accept();
    const before = statSync(path('b')).ino;
    await change(planned('b', { mode: 0o666 }), planned('c'));
    expect(names()).to.deep.equal([path('b'), path('c')]);
    expect(existsSync(path('a'))).to.be.false;
    expect(statSync(path('b'))).to.include({ ino: before });
    expect(statSync(path('b')).mode & 0o777).to.equal(0o666);
    await connect('c');
    await acceptedOn('c');
  });

  it('leaves all as it was when something cannot be opened, and says where it was asked for', async () => {
    await change(planned('a'));
    writeFileSync(path('obstacle'), '');
    const error = await set
      .prepare([planned('b'), planned('obstacle')])
      .catch((its: unknown) => its);
    expect(error).to.be.instanceOf(ListenError);
    expect((error as ListenError).message).to.match(
      /^virtproxyd.conf:3: unix_sock_dir: Cannot listen on '.*obstacle': it is no socket/,
    );
    set.commit();
    expect(names()).to.deep.equal([path('a')]);
    expect(existsSync(path('b'))).to.be.false;
  });

  it('takes back what was prepared', async () => {
    await set.prepare([planned('a')]);
    set.abandon();
    set.commit();
    expect(names()).to.deep.equal([]);
    expect(existsSync(path('a'))).to.be.false;
  });

  it('lets clients wait in the kernel while paused, and administrators in', async () => {
    await change(planned('a'), planned('admin', { role: 'admin' }));
    set.accept();
    set.pauseClients();
    await connect('a');
    await connect('admin');
    await acceptedOn('admin');
    expect(accepted).to.have.lengthOf(1);
    expect(set.isWaitedFor).to.be.true;
    set.accept();
    await acceptedOn('a');
    expect(set.isWaitedFor).to.be.false;
  });

  it('hides its sockets, and shows them again', async () => {
    await change(planned('a'));
    set.accept();
    set.hide();
    expect(existsSync(path('a'))).to.be.false;
    set.show();
    await connect('a');
    await acceptedOn('a');
  });

  it('leaves files that it shares', async () => {
    await change(planned('a'));
    set.share(true);
    set.close();
    expect(existsSync(path('a'))).to.be.true;
  });

  it('opens nothing once it is closed', async () => {
    set.close();
    const error = await set.prepare([planned('a')]).catch((its: unknown) => its);
    expect(error).to.be.instanceOf(ListenError);
    expect(existsSync(path('a'))).to.be.false;
  });
});
