import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext, createServer, type Server } from 'node:tls';
import { expect } from 'chai';
import { cipherKeyBits } from '../../lib/auth/tls-algorithms.js';
import { mapPriority, systemPriorities, TlsPriorityError } from '../../lib/auth/tls-priority.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';

const nothingSystemWide = (): ReadonlyMap<string, string> => new Map();
const old = 'NORMAL:-VERS-ALL:+VERS-TLS1.0:+VERS-TLS1.1';

/** Priorities whose suites must be the ones GnuTLS itself lists for them. */
const samePriorities = [
  ...['NORMAL', 'PFS', 'PERFORMANCE', 'LEGACY', 'SECURE128', 'SECURE192', 'SECURE256', 'SECURE'],
  ...['SUITEB128', 'SUITEB192', 'normal:%COMPAT', 'SECURE256:+SECURE128', 'NORMAL:+SUITEB192'],
  'SECURE128:-VERS-TLS-ALL:+VERS-TLS1.2',
  'NORMAL:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-SSL3.0:-VERS-DTLS-ALL:!RSA',
  'SECURE256:+SECURE128:-VERS-TLS-ALL:+VERS-TLS1.3:%SERVER_PRECEDENCE',
  'NONE:+VERS-TLS1.2:+AES-128-CBC:+RSA:+SHA1:+COMP-NULL:+SIGN-RSA-SHA256',
  'NONE:+VERS-TLS1.2:+AES-128-CBC:+ECDHE-RSA:+SHA1:+SIGN-ALL:+CURVE-SECP256R1',
  'NONE:+VERS-TLS-ALL:+MAC-ALL:+KX-ALL:+CIPHER-ALL:+SIGN-ALL:+GROUP-ALL:+COMP-ALL:+CTYPE-X509',
  'NORMAL:-CIPHER-ALL:+AES-256-GCM:+CHACHA20-POLY1305',
  'NORMAL:-MAC-ALL:+SHA256:+SHA384:-AES-128-CBC',
  'NORMAL:+CAMELLIA-256-CBC:+CAMELLIA-128-CBC:+SHA256:+SHA384:+AES-256-CCM-8:+AES-128-CCM-8',
  'NORMAL:-KX-ALL:+DHE-RSA:-AES-128-GCM:-3DES-CBC:-ARCFOUR-128:-MD5:-DHE-DSS:-PSK',
  'NORMAL:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:-GROUP-EC-ALL:+CURVE-SECP384R1',
  'NORMAL:-AEAD',
  'PFS:-SHA1:%SAFE_RENEGOTIATION:%LATEST_RECORD_VERSION:%NO_TICKETS:%DISABLE_TLS13_COMPAT_MODE',
];

const faultyTokens: readonly (readonly [text: string, token: string])[] = [
  ['NORMAL:+3DES-CBC', '+3DES-CBC'],
  ['NORMAL:+ARCFOUR-128', '+ARCFOUR-128'],
  ['NORMAL:+NULL', '+NULL'],
  ['NORMAL:+ANON-DH', '+ANON-DH'],
  ['NORMAL:+PSK', '+PSK'],
  ['NORMAL:+MD5', '+MD5'],
  ['NORMAL:+VERS-SSL3.0', '+VERS-SSL3.0'],
  ['NORMAL:+CTYPE-RAWPK', '+CTYPE-RAWPK'],
  ['NORMAL:+SIGN-RSA-MD5', '+SIGN-RSA-MD5'],
  ['NORMAL:+GROUP-GC256A', '+GROUP-GC256A'],
  ['NORMAL:+AES-129-GCM', '+AES-129-GCM'],
  ['NORMAL:+VERS-TLS1.4', '+VERS-TLS1.4'],
  ['NORMAL:+SIGN-ML-DSA-65', '+SIGN-ML-DSA-65'],
  ['NORMAL:+GROUP-X25519-MLKEM768', '+GROUP-X25519-MLKEM768'],
  ['NORMAL:-NORMAL', '-NORMAL'],
  ['NORMAL:-', '-'],
  ['NORMAL:AES-128-GCM', 'AES-128-GCM'],
  ['NORMAL:%VERIFY_ALLOW_SIGN_RSA_MD5', '%VERIFY_ALLOW_SIGN_RSA_MD5'],
  ['NORMAL:%VERIFY_DISABLE_CRL_CHECKS', '%VERIFY_DISABLE_CRL_CHECKS'],
  ['NORMAL:%NO_EXTENSIONS', '%NO_EXTENSIONS'],
  ['NORMAL:%FORCE_ETM', '%FORCE_ETM'],
  ['NORMAL:%WHATEVER', '%WHATEVER'],
  ['NORMAL:', ''],
  ['', ''],
  ['HIGH:!aNULL', 'HIGH'],
  ['TLSv1.2', 'TLSv1.2'],
  ['NORMAL:NONE', 'NONE'],
  ['NONE', 'NONE'],
  ['NONE:+VERS-TLS1.3', 'NONE:+VERS-TLS1.3'],
  ['NORMAL:-VERS-ALL', 'NORMAL:-VERS-ALL'],
  ['NORMAL:-CIPHER-ALL', 'NORMAL:-CIPHER-ALL'],
  ['NORMAL:+VERS-TLS1.1:%PROFILE_MEDIUM', 'NORMAL:+VERS-TLS1.1:%PROFILE_MEDIUM'],
  ['@NOBODY,ELSE:-RSA', '@NOBODY,ELSE'],
];

describe('mapPriority', () => {
  for (const [text, token] of faultyTokens) {
    it(`refuses ${JSON.stringify(text)} and names ${JSON.stringify(token)}`, () => {
      expect(() => mapPriority(text, nothingSystemWide))
        .to.throw(TlsPriorityError, `tls_priority: "${token}" `)
        .with.include({ code: 'TLS_PRIORITY', token });
    });
  }

  it('begins at TLS 1.2 unless older versions are asked for', () => {
    const versions = (text: string): string[] => {
      const { minVersion, maxVersion } = mapPriority(text, nothingSystemWide);
      return [minVersion, maxVersion];
    };
    expect(versions('NORMAL')).to.deep.equal(['TLSv1.2', 'TLSv1.3']);
    expect(versions('SECURE256')).to.deep.equal(['TLSv1.2', 'TLSv1.3']);
    expect(versions('SUITEB128')).to.deep.equal(['TLSv1.2', 'TLSv1.2']);
    expect(versions('LEGACY')).to.deep.equal(['TLSv1', 'TLSv1.3']);
    expect(versions('NORMAL:+VERS-TLS1.1')).to.deep.equal(['TLSv1.1', 'TLSv1.3']);
    expect(versions('NORMAL:-VERS-TLS1.3:+SECURE128')).to.deep.equal(['TLSv1.2', 'TLSv1.2']);
    expect(versions('NORMAL:-VERS-ALL:+VERS-TLS1.3')).to.deep.equal(['TLSv1.3', 'TLSv1.3']);
    expect(versions('NORMAL:+VERS-ALL:!VERS-TLS1.0')).to.deep.equal(['TLSv1.1', 'TLSv1.3']);
    // Without a suite or a group for it, TLS 1.3 cannot be had.
    expect(versions('NORMAL:-AEAD')).to.deep.equal(['TLSv1.2', 'TLSv1.2']);
    expect(versions('NORMAL:-GROUP-ALL')).to.deep.equal(['TLSv1.2', 'TLSv1.2']);
    expect(versions('NORMAL:-KX-ALL')).to.deep.equal(['TLSv1.3', 'TLSv1.3']);
  });

  it('takes a system-wide string, else a keyword of the list, else NORMAL for SYSTEM', () => {
    const ciphers = (text: string, defined: Record<string, string> = {}): string | undefined =>
      mapPriority(text, () => new Map(Object.entries(defined))).ciphers;
    const { ciphers: normal } = mapPriority('NORMAL');
    const { ciphers: secure } = mapPriority('SECURE256:-RSA');
    expect(ciphers('@SYSTEM')).to.equal(normal);
    expect(ciphers('@SYSTEM,NORMAL')).to.equal(normal);
    expect(ciphers('@LIBVIRT,SYSTEM')).to.equal(normal);
    expect(ciphers('@SYSTEM,SECURE256:-RSA')).to.equal(secure);
    expect(ciphers('@SYSTEM:-RSA', { SYSTEM: 'SECURE256' })).to.equal(secure);
    expect(ciphers('@LIBVIRT,SYSTEM', { SYSTEM: 'NONE', LIBVIRT: 'SECURE256:-RSA' })).to.equal(
      secure,
    );
  });

  it('takes away what is not there without effect, and tells of names that are not known', () => {
    const unknownIn = (text: string): string[] => {
      const tokens: string[] = [];
      const options = mapPriority(text, nothingSystemWide, (token) => tokens.push(token));
      expect(options).to.deep.equal(mapPriority('NORMAL', nothingSystemWide));
      return tokens;
    };
    const quantum = ['SIGN-ML-DSA-44', 'SIGN-ML-DSA-65', 'SIGN-ML-DSA-87', 'SIGN-MLDSA65'];
    const groups = ['X25519', 'SECP256R1', 'SECP384R1'].map((name) => `GROUP-${name}-MLKEM768`);
    expect(unknownIn(['NORMAL', ...quantum, ...groups].join(':-'))).to.deep.equal([]);
    expect(unknownIn(['NORMAL', ...quantum, ...groups].join(':!'))).to.deep.equal([]);
    const unknown = ['-AES-129-GCM', '-VERS-TLS1.4', '!SIGN-OF-TOMORROW'];
    expect(unknownIn(['NORMAL', ...unknown, '-COMP-ALL'].join(':'))).to.deep.equal(unknown);
  });

  it('lets the server choose the suite only when asked to', () => {
    expect(mapPriority('NORMAL').honorCipherOrder).to.equal(false);
    expect(mapPriority('NORMAL:%SERVER_PRECEDENCE').honorCipherOrder).to.equal(true);
  });

  it("maps profiles to OpenSSL's security levels", () => {
    expect(mapPriority('NORMAL:%PROFILE_MEDIUM').ciphers).to.match(/:@SECLEVEL=2$/);
    const modern = 'NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD:+GROUP-ALL:+SIGN-ALL:%PROFILE_HIGH';
    expect(() => createSecureContext(mapPriority(modern))).not.to.throw();
    expect(mapPriority('LEGACY').ciphers).to.match(/:@SECLEVEL=0$/);
    expect(mapPriority('NORMAL').ciphers).not.to.contain('@');
  });

  it('does not mind letters of either case', () => {
    expect(mapPriority('normal:-rsa:%server_precedence')).to.deep.equal(
      mapPriority('NORMAL:-RSA:%SERVER_PRECEDENCE'),
    );
  });

  for (const text of [...samePriorities, old, 'NORMAL:+SIGN-RSA-SHA1:%NO_ETM', '@SYSTEM']) {
    it(`is accepted by OpenSSL: ${text}`, () => {
      expect(() => createSecureContext(mapPriority(text, nothingSystemWide))).not.to.throw();
    });
  }

  const unlisted = certificatesLacking('gnutls-cli', 'openssl');
  describe(`with the suites GnuTLS lists${unlisted ? ` (skipped: ${unlisted})` : ''}`, () => {
    /** OpenSSL's names by the two bytes of a suite. */
    const names = new Map<string, string>();

    before(function () {
      if (unlisted !== undefined) this.skip();
      const modern = ['AES_256_GCM_SHA384', 'AES_128_GCM_SHA256', 'CHACHA20_POLY1305_SHA256']
        .concat(['AES_128_CCM_SHA256', 'AES_128_CCM_8_SHA256'])
        .map((name) => `TLS_${name}`);
      const all = ['-ciphersuites', modern.join(':'), 'ALL:COMPLEMENTOFALL:@SECLEVEL=0'];
      const listed = execFileSync('openssl', ['ciphers', '-V', ...all], { encoding: 'utf8' });
      for (const [, high = '', low = '', name = ''] of listed.matchAll(/0x(..),0x(..) - (\S+)/g)) {
        names.set(`${high}${low}`.toLowerCase(), name);
      }
    });

    for (const text of samePriorities) {
      it(text, () => {
        const listed = execFileSync('gnutls-cli', ['--list', '--priority', text], {
          encoding: 'utf8',
        });
        const expected = [...listed.matchAll(/^TLS_\S+\s+0x(..), 0x(..)/gm)]
          .map(([, high = '', low = '']) => names.get(`${high}${low}`))
          .filter((name) => name !== undefined);
        expect(expected).not.to.be.empty;
        const suites = mapPriority(text, nothingSystemWide).ciphers!.split(':');
        const chosen = suites.filter((name) => !name.startsWith('@'));
        expect(chosen).to.have.members(expected);
        for (const name of chosen) {
          expect(cipherKeyBits(name), name).to.equal(/128/.test(name) ? 128 : 256);
        }
      });
    }
  });

  describe(`in handshakes with gnutls-cli${unlisted ? ` (skipped: ${unlisted})` : ''}`, () => {
    let directory: string;
    let server: Server;
    const identity: Record<'cert' | 'key', string> = { cert: '', key: '' };

    before(function () {
      if (unlisted !== undefined) this.skip();
      directory = mkdtempSync(join(tmpdir(), 'priority-'));
      const authority = Authority.create(directory, 'authority');
      const files = authority.issue('server', { purpose: purpose.server });
      identity.cert = readFileSync(files.cert, 'utf8');
      identity.key = readFileSync(files.key, 'utf8');
    });
    after(() => {
      if (unlisted === undefined) rmSync(directory, { recursive: true, force: true });
    });
    afterEach((done) => void server.close(done));

    /** What was negotiated, 'VERSION SUITE', or 'refused'. */
    async function handshake(serverPriority: string, clientPriority: string): Promise<string> {
      let negotiated = 'refused';
      server = createServer({ ...mapPriority(serverPriority, nothingSystemWide), ...identity });
      server.on('secureConnection', (socket) => {
        const { name } = socket.getCipher();
        negotiated = `${socket.getProtocol() ?? ''} ${cipherKeyBits(name) > 0 ? name : 'of no key'}`;
        socket.end();
      });
      server.on('tlsClientError', (_error, socket) => socket.destroy());
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const options = ['--insecure', '--priority', clientPriority, '--port', String(port)];
      await new Promise<void>((resolve) => {
        // Its standard input stays open: it ends when the server ends the connection.
        execFile('gnutls-cli', [...options, 'localhost'], { timeout: 5000 }, () => resolve());
      });
      return negotiated;
    }

    const only = (version: string): string => `NORMAL:-VERS-ALL:+VERS-TLS${version}`;
    const handshakes: readonly (readonly [server: string, client: string, result: RegExp])[] = [
      ['NORMAL', 'NORMAL', /^TLSv1\.3 TLS_AES_256_GCM_SHA384$/],
      ['NORMAL', only('1.2'), /^TLSv1\.2 /],
      ['NORMAL', only('1.1'), /^refused$/],
      ['NORMAL', only('1.0'), /^refused$/],
      ['@SYSTEM', only('1.1'), /^refused$/],
      ['NORMAL:-VERS-TLS1.3', 'NORMAL', /^TLSv1\.2 /],
      ['NORMAL:-VERS-TLS1.2', only('1.2'), /^refused$/],
      ['NORMAL:+VERS-TLS1.1', only('1.1'), /^TLSv1\.1 /],
      ['NORMAL:+VERS-TLS1.1', only('1.0'), /^refused$/],
      ['LEGACY', only('1.0'), /^TLSv1 /],
      [old, only('1.1'), /^TLSv1\.1 /],
      [old, only('1.2'), /^refused$/],
      // A gap between the oldest and the newest version.
      ['NORMAL:+VERS-TLS1.0', only('1.1'), /^refused$/],
      ['NORMAL:+VERS-TLS1.0', only('1.0'), /^TLSv1 /],
      ['NORMAL:+VERS-TLS1.0:-VERS-TLS1.2', only('1.2'), /^refused$/],
      ['SECURE256', only('1.2'), /^TLSv1\.2 ECDHE-RSA-AES256-GCM-SHA384$/],
      ['SECURE256', `${only('1.2')}:-AES-256-GCM:-CHACHA20-POLY1305:-AES-256-CCM`, /^refused$/],
      ['NORMAL', `${only('1.2')}:-KX-ALL:+DHE-RSA`, /^TLSv1\.2 DHE-RSA-/],
      ['NORMAL', `${only('1.2')}:-KX-ALL:+RSA`, /^TLSv1\.2 AES256-GCM-SHA384$/],
      ['PFS', `${only('1.2')}:-KX-ALL:+RSA`, /^refused$/],
      ['NORMAL:-GROUP-ALL:+GROUP-X25519', 'NORMAL:-GROUP-X25519', /^refused$/],
      ['NORMAL:-GROUP-ALL:+GROUP-FFDHE2048', 'NORMAL:-GROUP-EC-ALL', /^TLSv1\.3 /],
      ['NORMAL', 'PERFORMANCE', /^TLSv1\.3 TLS_AES_128_GCM_SHA256$/],
      ['NORMAL:%SERVER_PRECEDENCE', 'PERFORMANCE', /^TLSv1\.3 TLS_AES_256_GCM_SHA384$/],
      ['NORMAL:-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA512', 'NORMAL', /^TLSv1\.3 /],
      ['NORMAL:-SIGN-ALL:+SIGN-ECDSA-SHA256', 'NORMAL', /^refused$/],
      ['SUITEB128', 'NORMAL', /^refused$/],
    ];
    for (const [serverPriority, clientPriority, result] of handshakes) {
      it(`${serverPriority} against ${clientPriority}: ${result.source}`, async () => {
        expect(await handshake(serverPriority, clientPriority)).to.match(result);
      });
    }
  });
});

describe('systemPriorities', () => {
  let directory: string;
  let file: string;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'priorities-'));
    file = join(directory, 'config');
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('reads the strings with and without a section', () => {
    writeFileSync(
      file,
      '# of the host\nOLD = NORMAL:-RSA\n[priorities]\nSYSTEM=SECURE256:%COMPAT\n',
    );
    expect(Object.fromEntries(systemPriorities(file))).to.deep.equal({
      OLD: 'NORMAL:-RSA',
      SYSTEM: 'SECURE256:%COMPAT',
    });
  });

  it('leaves SYSTEM out where the file lists what is allowed', () => {
    writeFileSync(file, '[global]\noverride-mode = allowlist\n[priorities]\nSYSTEM=NONE\nX=PFS\n');
    expect(Object.fromEntries(systemPriorities(file))).to.deep.equal({ X: 'PFS' });
  });

  it('knows none without the file', () => {
    expect(systemPriorities(join(directory, 'absent')).size).to.equal(0);
  });
});
