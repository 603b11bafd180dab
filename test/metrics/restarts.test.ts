import { join } from 'node:path';
import { expect } from 'chai';
import { encodeString } from '../../lib/rpc/session-messages.js';
import type { Status } from '../../lib/metrics/status.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import type { RawClient } from '../peers/raw-client.js';
import { ask, Scrape, type MetricsPlace } from '../peers/scrape.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { stressCall } from '../peers/stress-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const createDomain = 9;

describe('a daemon that went away, as metrics, status and readiness show it', function () {
  this.timeout(30_000);
  let place: MetricsPlace;
  let daemon: StandInDaemon;
  let proxy: Proxy;
  const clients: RawClient[] = [];

  beforeEach(async () => {
    const directory = await freshDirectory();
    const [port = 0] = await freePorts(1);
    place = { port };
    daemon = await StandInDaemon.listen(join(directory, 'sock'));
    proxy = await Proxy.start({
      directory,
      cluster: `[metrics]\nlisten = 127.0.0.1:${port}\n[routes]\nqemu = ${daemon.path}\n[cluster]\nworkers = 2\n`,
    });
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await proxy.stop();
    await daemon.stop();
  });

  const status = async (): Promise<Status> =>
    JSON.parse((await ask(place, '/status.json')).body) as Status;

  it('is waited for by clients of two workers, and counted once', async () => {
    await until(
      async () => (await status()).workers.filter(({ state }) => state === 'ready').length === 2,
      { what: 'both workers to be ready' },
    );
    for (let each = 0; each < 4; each++) clients.push(await proxy.open());
    const served = await until(
      async () => {
        const { workers } = await status();
        return workers.reduce((sum, worker) => sum + worker.clients, 0) === 4 ? workers : null;
      },
      { what: 'four clients' },
    );
    expect(served.map((worker) => worker.clients > 0)).to.deep.equal([true, true]);
    const asking = clients.map((client) => client.begin(stressCall.hostname));
    const changing = clients[0]!.begin(createDomain);
    await until(
      () =>
        daemon.seen.filter(({ procedure }) => procedure === stressCall.hostname).length === 4 &&
        daemon.seen.some(({ serial }) => serial === changing),
      { what: 'five calls' },
    );
    await daemon.stop();
    const unready = await until(
      async () => {
        const { status: code, body } = await ask(place, '/readyz');
        return body.includes('4 connections') ? { code, body } : null;
      },
      { what: 'the daemon to be missed' },
    );
    expect(unready.code).to.equal(503);
    expect(unready.body).to.contain('virtqemud went away: 4 connections wait for its return.');
    const away = await status();
    expect(away.daemons.find((one) => one.daemon === 'virtqemud')).to.include({
      reopening: 4,
      restarts: 1,
    });
    daemon = await StandInDaemon.listen(daemon.path);
    daemon.answer(stressCall.hostname, () => encodeString('back.example'));
    for (const [index, client] of clients.entries()) await client.replyTo(asking[index]!);
    const after = await until(
      async () => {
        const seen = await Scrape.of(place);
        const name = 'virtproxyd_daemon_connections_reopened_total{daemon="virtqemud"}';
        return seen.value(name) === 4 ? seen : null;
      },
      { what: 'all to be opened again' },
    );
    const of = (name: string): number | undefined =>
      after.value(`virtproxyd_daemon_${name}{daemon="virtqemud"}`);
    expect(of('restarts_total')).to.equal(1);
    expect(of('connections_reopening')).to.equal(0);
    expect(of('connections')).to.equal(4);
    expect(of('calls_repeated_total')).to.equal(4);
    expect(of('calls_failed_total')).to.equal(1);
    expect((await ask(place, '/readyz')).status).to.equal(200);
  });
});
