import { expect } from 'chai';
import { adminProcedure as number } from '../../lib/admin/messages.js';
import { headerLength, program, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain } from '../../lib/rpc/rpc-error.js';
import type { TypedParameter } from '../../lib/rpc/typed-parameters.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import type { WireError } from '../peers/raw-client.js';
import { admin as frames } from '../rpc/fixtures.js';
import { unsigned, type AdminClient } from './admin-client.js';
import { AdminHost } from './fake-backend.js';

const own = 'virtproxyd';
const header = { program: program.admin };

describe('what administrators set by typed parameters', () => {
  let host: AdminHost;
  let client: AdminClient;

  beforeEach(async () => {
    host = await AdminHost.start();
    client = await host.connect();
  });
  afterEach(() => host.stop());

  describe('the bounds of the worker pool', () => {
    const set = (...parameters: TypedParameter[]): Promise<void> =>
      client.set(number.serverSetThreadpoolParameters, own, ...parameters);
    const refused = (...parameters: TypedParameter[]): Promise<WireError> =>
      client.refusedSetting(number.serverSetThreadpoolParameters, own, ...parameters);

    it('takes one, both or none of them', async () => {
      await set(unsigned('maxWorkers', 7));
      expect(host.backend.bounds).to.deep.equal({ minWorkers: 2, maxWorkers: 7 });
      await set(unsigned('minWorkers', 0));
      expect(host.backend.bounds).to.deep.equal({ minWorkers: 0, maxWorkers: 7 });
      await set(unsigned('maxWorkers', 9), unsigned('minWorkers', 9));
      expect(host.backend.bounds).to.deep.equal({ minWorkers: 9, maxWorkers: 9 });
      await set();
      expect(host.backend.bounds).to.deep.equal({ minWorkers: 9, maxWorkers: 9 });
    });

    it('takes the very frame that virt-admin sends', async () => {
      const frame = Buffer.from(frames.threadpoolSetCall);
      // The server of that capture was libvirtd.
      const payload = Buffer.concat([
        new XdrWriter().string(own).finish(),
        frame.subarray(headerLength + 12),
      ]);
      const reply = await client.call(number.serverSetThreadpoolParameters, payload, header);
      expect(reply.status).to.equal(status.ok);
      expect(host.backend.bounds).to.deep.equal({ minWorkers: 6, maxWorkers: 21 });
    });

    for (const [what, parameters, said] of [
      [
        'a minimum above the maximum',
        [unsigned('minWorkers', 5)],
        ['minWorkers (5)', 'maxWorkers (4)'],
      ],
      [
        'a maximum below the minimum',
        [unsigned('maxWorkers', 1)],
        ['minWorkers (2)', 'maxWorkers (1)'],
      ],
      ['no worker at all', [unsigned('minWorkers', 0), unsigned('maxWorkers', 0)], ['maxWorkers']],
      ['an unknown name', [unsigned('bogus', 1)], ['bogus']],
      ['a name that can only be read', [unsigned('nWorkers', 1)], ['nWorkers']],
      ['a name twice', [unsigned('maxWorkers', 5), unsigned('maxWorkers', 6)], ['maxWorkers']],
      ['a signed number', [{ field: 'maxWorkers', type: 'int', value: 5 }], ['maxWorkers', 'int']],
      ['a text', [{ field: 'maxWorkers', type: 'string', value: '5' }], ['maxWorkers', 'string']],
    ] as [string, TypedParameter[], string[]][]) {
      it(`refuses ${what}`, async () => {
        const error = await refused(...parameters);
        expect(error).to.include({ code: errorCode.invalidArgument, domain: errorDomain.none });
        for (const word of said) expect(error.message).to.contain(word);
        expect(host.backend.said).to.deep.equal([]);
      });
    }

    it('refuses priority workers with a sentence', async () => {
      const error = await refused(unsigned('maxWorkers', 5), unsigned('prioWorkers', 1));
      expect(error.code).to.equal(errorCode.operationUnsupported);
      expect(error.message).to.contain('prioWorkers');
      expect(host.backend.said).to.deep.equal([]);
    });

    it('refuses more parameters than the protocol allows', async () => {
      const error = await refused(...Array.from({ length: 33 }, () => unsigned('maxWorkers', 5)));
      expect(error.message).to.equal('Unable to decode message payload');
    });

    it('is not for the admin server', async () => {
      const error = await client.refusedSetting(
        number.serverSetThreadpoolParameters,
        'admin',
        unsigned('maxWorkers', 2),
      );
      expect(error.code).to.equal(errorCode.operationUnsupported);
    });
  });

  describe('the limits of clients', () => {
    const set = (...parameters: TypedParameter[]): Promise<void> =>
      client.set(number.serverSetClientLimits, own, ...parameters);

    it('takes one, both or none of them', async () => {
      await set(unsigned('nclients_max', 50));
      expect(await client.limits(own)).to.deep.equal({
        nclients_max: 50,
        nclients: 3,
        nclients_unauth_max: 10,
        nclients_unauth: 1,
      });
      await set(unsigned('nclients_unauth_max', 0));
      await set();
      await set(unsigned('nclients_unauth_max', 7), unsigned('nclients_max', 7));
      expect(host.backend.clientBounds).to.deep.equal({ maxClients: 7, maxAnonymousClients: 7 });
    });

    for (const [what, parameters, said] of [
      [
        'fewer clients than may be without login',
        [unsigned('nclients_max', 9)],
        ['nclients_max (9)'],
      ],
      ['more without login than clients', [unsigned('nclients_unauth_max', 101)], ['101', '100']],
      [
        'no clients at all',
        [unsigned('nclients_max', 0), unsigned('nclients_unauth_max', 0)],
        ['nclients_max'],
      ],
      ['a name that can only be read', [unsigned('nclients', 1)], ['nclients']],
      [
        'a name twice',
        [unsigned('nclients_max', 50), unsigned('nclients_max', 50)],
        ['nclients_max'],
      ],
      ['a hyper number', [{ field: 'nclients_max', type: 'hyper', value: 5n }], ['nclients_max']],
    ] as [string, TypedParameter[], string[]][]) {
      it(`refuses ${what}`, async () => {
        const error = await client.refusedSetting(number.serverSetClientLimits, own, ...parameters);
        expect(error.code).to.equal(errorCode.invalidArgument);
        for (const word of said) expect(error.message).to.contain(word);
        expect(host.backend.said).to.deep.equal([]);
      });
    }
  });
});
