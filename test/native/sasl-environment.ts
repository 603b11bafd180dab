import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const saslpasswd = '/usr/sbin/saslpasswd2';

/** libsasl2 reads its configuration once in a process, so all tests of a process share this one. */
export interface SaslEnvironment {
  readonly user: string;
  readonly password: string;
  /** Where libsasl2 looks for saslauthd, which checks PLAIN; nothing listens there yet. */
  readonly saslauthd: string;
}

const mechanisms = 'SCRAM-SHA-512 SCRAM-SHA-256 DIGEST-MD5 PLAIN';

let environment: SaslEnvironment | undefined;

/** Null without Debian's sasl2-bin. The first call must come before libsasl2 is loaded. */
export function saslEnvironment(): SaslEnvironment | null {
  if (!existsSync(saslpasswd)) return null;
  return (environment ??= create());
}

function create(): SaslEnvironment {
  const directory = mkdtempSync(join(tmpdir(), 'sasl-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  const database = join(directory, 'sasldb2');
  const made = { user: 'fred', password: 'pässword 7', saslauthd: join(directory, 'mux') };
  writeFileSync(
    join(directory, 'libvirt.conf'),
    `mech_list: ${mechanisms}\n` +
      `sasldb_path: ${database}\nauxprop_plugin: sasldb\n` +
      `pwcheck_method: saslauthd\nsaslauthd_path: ${made.saslauthd}\n`,
  );
  execFileSync(saslpasswd, ['-f', database, '-c', '-p', '-a', 'libvirt', made.user], {
    input: made.password,
  });
  process.env['SASL_CONF_PATH'] = directory;
  return made;
}
