import { expect } from 'chai';
import { mayBindDeep } from '../../lib/native/sasl-plugins.js';
import { SaslServer } from '../../lib/native/sasl.js';
import { threadKeys } from '../../lib/native/thread-keys.js';
import { SaslClient } from './sasl-client.js';
import { saslEnvironment, type SaslEnvironment } from './sasl-environment.js';

const mechanism = 'DIGEST-MD5';

describe('native/sasl-plugins', () => {
  describe('DIGEST-MD5 with a layer (needs saslpasswd2)', () => {
    let account: SaslEnvironment;

    before(function () {
      account = saslEnvironment() ?? this.skip();
    });

    async function logIn(): Promise<{ server: SaslServer; client: SaslClient }> {
      const server = await SaslServer.open({});
      const most = { maxSsf: 256, maxBufferSize: 65_536 };
      server.setSecurity({ ...most, minSsf: 128, noPlaintext: true, noAnonymous: true });
      const client = new SaslClient({ ...account, ...most });
      let step = await server.start(mechanism, client.start(mechanism));
      while (!step.complete) step = await server.step(client.step(step.data));
      client.step(step.data);
      return { server, client };
    }

    it('takes and loses no thread keys, as the plug-in uses the OpenSSL it was built with', async function () {
      if (!mayBindDeep()) this.skip();
      // What is set up once.
      const first = await logIn();
      const before = threadKeys().used;
      const logins: Awaited<ReturnType<typeof logIn>>[] = [];
      for (let count = 0; count < 40; count++) logins.push(await logIn());
      for (const { server, client } of [first, ...logins]) {
        expect(server.ssf()).to.equal(128);
        const packet = client.encode(Buffer.from('a call'));
        expect(server.decode(packet).toString()).to.equal('a call');
        server.dispose();
        client.dispose();
      }
      expect(threadKeys().used).to.equal(before);
    });
  });
});
