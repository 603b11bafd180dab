import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigError } from '../../../lib/config/errors.js';
import { checkPrerequisites } from '../../../lib/primary/host/prerequisites.js';
import { Authority, certificatesLacking, purpose } from '../../peers/certificates.js';
import { recordedLog } from '../recorded-log.js';
import { configurationIn } from '../configuration.js';

const lacking = certificatesLacking();

describe('primary/host/prerequisites', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'prerequisites-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  const check = (conf: string): ReturnType<typeof checkPrerequisites> =>
    checkPrerequisites(configurationIn(directory, conf), recordedLog().log);
  const faultOf = async (conf: string): Promise<string> => {
    try {
      await check(conf);
    } catch (error) {
      expect(error).to.be.instanceOf(ConfigError);
      return (error as ConfigError).message;
    }
    throw new Error('nothing was at fault');
  };

  it('has nothing to say of certificates where TLS is off', async () => {
    expect((await check('ca_file = "/nonexistent"\n')).certificates).to.equal(null);
  });

  const title = 'gives the ends of the certificates, and names the key of a file that is missing';
  (lacking === undefined ? it : it.skip)(
    lacking === undefined ? title : `${title} (${lacking})`,
    async () => {
      const authority = Authority.create(directory, 'ca');
      const server = authority.issue('server', { purpose: purpose.server });
      const files = { ca_file: authority.cert, cert_file: server.cert, key_file: server.key };
      const confOf = (given: Record<string, string>): string =>
        `listen_tls = 1\n${Object.entries(given)
          .map(([key, file]) => `${key} = "${file}"\n`)
          .join('')}`;
      const { certificates } = await check(confOf(files));
      expect(certificates?.server).to.be.above(Date.now());
      expect(certificates?.ca).to.be.above(Date.now());
      for (const [index, key] of Object.keys(files).entries()) {
        const fault = await faultOf(confOf({ ...files, [key]: '/nonexistent' }));
        expect(fault).to.include(`virtproxyd.conf:${index + 2}: ${key}: `);
      }
    },
  );
});
