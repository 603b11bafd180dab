import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { program } from '../../lib/rpc/frame.js';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { Service } from '../lifecycle/service.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { ask, Scrape, type MetricsPlace } from '../peers/scrape.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { stressCall } from '../peers/stress-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const hostname = 'procedure="CONNECT_GET_HOSTNAME"';
const calls = 'virtproxyd_calls_total';

/** Series that count and have gone back, or away, from one scrape to a later one. */
function setbacks(before: Scrape, after: Scrape): string[] {
  return before.counters.filter(
    (series) => (after.value(series) ?? -1) < (before.value(series) ?? 0),
  );
}

/** Makes so many calls one after the other. */
async function call(client: RawClient, times: number): Promise<void> {
  for (let each = 0; each < times; each++) await client.call(stressCall.hostname);
}

describe('the metrics of a running proxy', function () {
  this.timeout(60_000);
  let place: MetricsPlace;
  let cluster: string;

  beforeEach(async () => {
    const [port = 0] = await freePorts(1);
    place = { port };
    cluster = `[metrics]\nlisten = 127.0.0.1:${port}\n`;
  });

  const scrape = (): Promise<Scrape> => Scrape.of(place);

  /** The first scrape for which `condition` holds. */
  const scrapeWith = (what: string, condition: (seen: Scrape) => boolean): Promise<Scrape> =>
    until(
      async () => {
        const seen = await scrape();
        return condition(seen) ? seen : null;
      },
      { what },
    );

  describe('with clients, crashes and reloads', () => {
    let service: Service;

    afterEach(() => service.end());

    it('count clients, calls and bytes', async () => {
      service = await Service.start({ cluster, remote: true });
      const before = await scrape();
      const clients = [
        await service.proxy.open(),
        await service.proxy.open(),
        await connectTcp(Number(service.conf['tcp_port'])),
      ];
      await clients[2]!.openUri('qemu:///system');
      for (const client of clients) await call(client, 20);
      await clients[0]!.call(4000);
      await clients[0]!.call(4001);
      await clients[1]!.call(4002, undefined, { program: program.qemu });
      const after = await scrapeWith(
        'the calls to be counted',
        (seen) => seen.sum(calls) - before.sum(calls) >= 63,
      );
      const grown = (name: string, ...labels: string[]): number =>
        after.sum(name, ...labels) - before.sum(name, ...labels);
      expect(grown(calls, hostname, 'status="ok"')).to.equal(60);
      expect(grown(calls, 'program="remote",procedure="other"')).to.equal(2);
      expect(grown(calls, 'program="qemu",procedure="other"')).to.equal(1);
      expect(grown('virtproxyd_call_duration_seconds_count')).to.equal(63);
      expect(grown('virtproxyd_call_duration_seconds_sum')).to.be.above(0).and.below(30);
      expect(grown('virtproxyd_clients_accepted_total', 'transport="unix"')).to.equal(2);
      expect(grown('virtproxyd_clients_accepted_total', 'transport="tcp"')).to.equal(1);
      const of = (transport: string): string =>
        `virtproxyd_clients{transport="${transport}",state="serving",rights="read-write"}`;
      expect([after.value(of('unix')), after.value(of('tcp'))]).to.deep.equal([2, 1]);
      // 20 calls without payload, and whatever opened the connection.
      const received = (transport: string): number =>
        grown('virtproxyd_client_received_bytes_total', `transport="${transport}"`);
      expect(received('tcp'))
        .to.be.above(20 * 28)
        .and.below(20 * 28 + 300);
      expect(received('unix'))
        .to.be.above(43 * 28)
        .and.below(43 * 28 + 600);
      expect(grown('virtproxyd_client_sent_bytes_total')).to.equal(
        clients.reduce((sum, { bytesReceived }) => sum + bytesReceived, 0),
      );
      expect(after.sum('virtproxyd_daemon_connections')).to.equal(3);
      const [worker] = service.processes();
      expect(worker).to.be.a('number');
      expect(after.sum('virtproxyd_worker_cpu_seconds_total')).to.be.above(0);
      expect(after.sum('virtproxyd_worker_resident_memory_bytes')).to.be.above(2e7);
      const { notAfter } = certificate(service);
      expect(
        after.value('virtproxyd_certificate_expiry_timestamp_seconds{certificate="server"}'),
      ).to.equal(notAfter / 1000);
      for (const client of clients) client.destroy();
      await scrapeWith('the clients to be gone', (seen) => seen.sum('virtproxyd_clients') === 0);
    });

    it('never go back when workers are killed, and count none of their calls twice', async () => {
      service = await Service.start({ cluster });
      let before = await scrape();
      let counted = before.sum(calls, hostname);
      for (let round = 1; round <= 2; round++) {
        const client = await service.proxy.open();
        await call(client, 50);
        counted += 50;
        const told = await scrapeWith(
          'all calls to be told',
          (seen) => seen.sum(calls, hostname) >= counted,
        );
        expect(setbacks(before, told)).to.deep.equal([]);
        for (const worker of service.proxy.workers()) process.kill(worker, 'SIGKILL');
        await client.end;
        const restarts = 'virtproxyd_worker_restarts_total{reason="crash"}';
        const after = await scrapeWith(
          'the crashes to be counted',
          (seen) => (seen.value(restarts) ?? 0) >= (told.value(restarts) ?? 0) + 2,
        );
        expect(setbacks(told, after)).to.deep.equal([]);
        expect(after.sum(calls, hostname)).to.equal(counted);
        before = after;
        await service.says(/is ready/, 2 + 2 * round);
      }
      expect(before.names).to.include('virtproxyd_workers');
    });

    it('go on over reloads, with the last words of workers that end', async () => {
      service = await Service.start({ cluster });
      const staying = await service.proxy.open();
      await call(staying, 10);
      const before = await scrape();
      await service.reload();
      await call(staying, 10);
      const leaving = await service.proxy.open();
      await call(leaving, 10);
      const during = await scrapeWith(
        'calls of both generations',
        (seen) => seen.sum(calls, hostname) === 30,
      );
      expect(setbacks(before, during)).to.deep.equal([]);
      expect(during.value('virtproxyd_generation')).to.equal(2);
      expect(during.value('virtproxyd_draining_generations')).to.equal(1);
      expect(during.value('virtproxyd_reloads_total{result="success"}')).to.equal(1);
      // Their worker ends as soon as they have left, and has made no report since.
      await call(staying, 10);
      staying.destroy();
      const after = await scrapeWith(
        'the old generation to end',
        (seen) => seen.value('virtproxyd_draining_generations') === 0,
      );
      expect(after.sum(calls, hostname)).to.equal(40);
      expect(setbacks(during, after)).to.deep.equal([]);
      await service.configure({ max_clients: 'many' });
      service.signal('SIGHUP');
      const failed = await scrapeWith(
        'the failed reload',
        (seen) => seen.value('virtproxyd_reloads_total{result="failure"}') === 1,
      );
      expect(failed.value('virtproxyd_last_reload_successful')).to.equal(0);
      expect(failed.value('virtproxyd_generation')).to.equal(2);
      expect(setbacks(after, failed)).to.deep.equal([]);
    });
  });

  describe('in front of a daemon that the test decides on', () => {
    let directory: string;
    let daemon: StandInDaemon;
    let proxy: Proxy;

    beforeEach(async () => {
      directory = await freshDirectory();
      daemon = await StandInDaemon.listen(join(directory, 'sock'));
    });

    afterEach(async () => {
      await proxy.stop();
      await daemon.stop();
    });

    const start = async (lines = '', conf: Record<string, number> = {}): Promise<void> => {
      proxy = await Proxy.start({
        directory,
        conf,
        cluster: `${cluster}[routes]\nqemu = ${daemon.path}\n[cluster]\nworkers = 1\ndaemon_restart_timeout = 0\n${lines}`,
      });
    };

    it('tell calls under way, held back, answered late and lost', async () => {
      await start('', { max_client_requests: 5 });
      const client = await proxy.open();
      const serials = Array.from({ length: 8 }, () => client.begin(stressCall.hostname));
      const connection = await daemon.connection();
      await until(() => connection.frames.length === 5, { what: 'five calls at the daemon' });
      const busy = await scrape();
      expect(busy.value('virtproxyd_calls_in_flight')).to.equal(5);
      expect(busy.value('virtproxyd_calls_held')).to.equal(3);
      expect(busy.sum(calls, hostname)).to.equal(0);
      const [first] = connection.frames.splice(0, 1);
      connection.reply(first!, encodeString('late'));
      await client.replyTo(serials[0]!);
      await until(() => connection.frames.length === 5, { what: 'the sixth call' });
      await daemon.stop();
      for (const serial of serials.slice(1)) await client.replyTo(serial);
      const after = await scrapeWith('the loss', (seen) => seen.sum(calls, hostname) === 8);
      const statuses = ['ok', 'error', 'lost', 'refused'].map((status) =>
        after.sum(calls, hostname, `status="${status}"`),
      );
      expect(statuses).to.deep.equal([1, 0, 5, 2]);
      expect(after.sum('virtproxyd_daemon_failures_total', 'reason="lost"')).to.equal(1);
      expect(after.sum('virtproxyd_daemon_connections')).to.equal(0);
      expect(after.value('virtproxyd_calls_in_flight')).to.equal(0);
      client.destroy();
    });

    it('count calls whose client left as lost', async () => {
      await start();
      const client = await proxy.open();
      client.begin(stressCall.hostname);
      const connection = await daemon.connection();
      await until(() => connection.frames.length === 1, { what: 'the call at the daemon' });
      client.destroy();
      await scrapeWith(
        'the call to be given up',
        (seen) => seen.sum(calls, hostname, 'status="lost"') === 1,
      );
    });

    it('tell of daemons that cannot be opened, why, and give names of strangers no series', async () => {
      await start('open_timeout = 0.3\n');
      await daemon.stop();
      const open = (uri: string): Promise<unknown> =>
        proxy.open(uri).then(
          (client) => client.destroy(),
          () => undefined,
        );
      await open('qemu:///system');
      for (const name of ['one', 'two', 'three']) await open(`${name}:///system`);
      const missing = await scrape();
      const failures = 'virtproxyd_daemon_failures_total';
      expect(missing.sum(failures, 'daemon="virtqemud",reason="connect"')).to.equal(1);
      expect(missing.sum(failures, 'daemon="other",reason="connect"')).to.equal(3);
      expect(missing.text).to.not.match(/virt(one|two|three)d/);
      expect((await ask(place, '/readyz')).status).to.equal(503);
      expect((await ask(place, '/readyz')).body).to.contain(`no socket '${daemon.path}'`);
      daemon = await StandInDaemon.listen(daemon.path);
      daemon.answer(1, () => null);
      await open('qemu:///system');
      await scrapeWith(
        'the daemon to be given up',
        (seen) => seen.sum(failures, 'reason="timeout"') === 1,
      );
    });

    it('count clients that were not let in, by the reason', async () => {
      await start('login_timeout = 0.3\n');
      const silent = await RawClient.connect(proxy.socket);
      await silent.end;
      await scrapeWith(
        'the refusal',
        (seen) => seen.value('virtproxyd_clients_refused_total{reason="login_timeout"}') === 1,
      );
    });

    it('say whether new clients are served', async () => {
      await start();
      const ready = await ask(place, '/readyz');
      expect([ready.status, ready.body]).to.deep.equal([200, 'ready\n']);
      const healthy = await ask(place, '/healthz');
      expect([healthy.status, healthy.body]).to.deep.equal([200, 'ok\n']);
    });
  });
});

/** When the server's certificate ends, in milliseconds since the epoch. */
function certificate({ conf }: Service): { readonly notAfter: number } {
  const { validTo } = new X509Certificate(readFileSync(String(conf['cert_file'])));
  return { notAfter: Date.parse(validTo) };
}
