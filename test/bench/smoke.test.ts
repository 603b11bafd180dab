import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { messageType } from '../../lib/rpc/frame.js';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { frameOf } from '../peers/frame-socket.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory } from '../peers/waiting.js';
import { Bench } from './bench.js';
import { direct, ours } from './competitors.js';
import { resultOf, runLoad, startLoad } from './load.js';
import { plainRows, playPlain } from './load-rows.js';
import { buildPrograms, programsLacking, type Programs } from './programs.js';
import { medianOf } from './results.js';

const lacking = programsLacking();
const getLibVersion = 157;

describe(`the benchmark${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let programs: Programs;

  before(function () {
    if (lacking !== undefined) this.skip();
    programs = buildPrograms();
  });

  describe('in front of the stand-in daemon', () => {
    let bench: Bench | undefined;

    beforeEach(async () => {
      const options = { seconds: 0.3, repeats: 1, streamBytes: 8 * 1024 * 1024 };
      bench = await Bench.open(programs, [direct, ours(1)], options);
    });
    afterEach(async () => {
      await bench?.close();
    });

    it('measures calls, opens and streams, without and with the proxy', async () => {
      const names = ['4x4', 'reply-64Ki', 'opens-16', 'stream-download', 'stream-upload'];
      await playPlain(
        bench!,
        plainRows.filter(({ name }) => names.includes(name)),
      );
      const { rows } = bench!.results;
      expect(rows.map(({ name }) => name)).to.deep.equal(names);
      for (const row of rows) {
        expect(Object.keys(row.competitors)).to.deep.equal(['direct', 'virtproxyd, 1 worker']);
        for (const competitor of Object.keys(row.competitors)) {
          expect(medianOf(row, competitor, 'rate'), `${row.name}, ${competitor}`).to.be.above(0);
        }
        expect(medianOf(row, 'direct', 'cpu')).to.equal(null);
        expect(medianOf(row, 'virtproxyd, 1 worker', 'cpu')).to.be.above(0);
      }
    });

    it('counts every answered call and sorts their latencies', async () => {
      const result = await runLoad(programs.generator, 'calls', {
        socket: bench!.daemon,
        clients: 3,
        'in-flight': 2,
        'call-bytes': 5000,
        'reply-bytes': 300_000,
        seconds: 0.3,
      });
      expect(result).to.include({ clients: 3, inFlight: 2, errors: 0, firstError: null });
      expect(result.count).to.be.above(0).and.at.most(result.total);
      const { p50, p99, p999, max } = result.latency!;
      expect([p50, p99, p999]).to.deep.equal([p50, p99, p999].toSorted((a, b) => a - b));
      // A percentile is the middle of its bucket.
      expect(p999).to.be.at.most(max * 1.01);
    });
  });

  describe('in front of a daemon that answers wrongly', () => {
    let directory: string;
    let daemon: StandInDaemon;

    beforeEach(async () => {
      directory = await freshDirectory();
      daemon = await StandInDaemon.listen(join(directory, 'sock'));
    });
    afterEach(async () => {
      await daemon.stop();
      await rm(directory, { recursive: true });
    });

    it('counts a reply to another call, one of another length and an early end as errors', async () => {
      const load = startLoad(programs.generator, 'calls', { socket: daemon.path, clients: 3 });
      const [first, second, third] = await Promise.all(
        [0, 1, 2].map((at) => daemon.connection(at)),
      );
      const call = await first!.takeCall(getLibVersion);
      const reply = { ...call, type: messageType.reply };
      first!.send(frameOf({ ...reply, serial: call.serial + 1 }, Buffer.alloc(8)));
      second!.reply(await second!.takeCall(getLibVersion), encodeString('longer'));
      await third!.takeCall(getLibVersion);
      third!.destroy();
      expect((await resultOf(load)).errors).to.equal(3);
    });
  });
});
