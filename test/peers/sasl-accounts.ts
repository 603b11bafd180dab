import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { testWorkerUser } from './test-worker-user.js';

const saslpasswd = '/usr/sbin/saslpasswd2';

/** What this machine lacks to make SASL accounts, as a phrase for a test's title. */
export function saslAccountsLacking(): string | undefined {
  return existsSync(saslpasswd) ? undefined : 'needs sasl2-bin';
}

export interface SaslAccountsOptions {
  /** An existing directory. */
  readonly directory: string;
  /** As `mech_list` of sasl2/libvirt.conf has them, separated by blanks. */
  readonly mechanisms: string;
  /** Passwords by user name. */
  readonly users: Readonly<Record<string, string>>;
}

/**
 * A server's SASL configuration with a password database of its own, and credentials for libvirt
 * clients.
 */
export class SaslAccounts {
  /** For the server's environment. */
  readonly serverEnv: Readonly<Record<string, string>>;
  private readonly users: Readonly<Record<string, string>>;

  private constructor(
    private readonly directory: string,
    users: Readonly<Record<string, string>>,
  ) {
    this.users = users;
    this.serverEnv = { SASL_CONF_PATH: directory };
  }

  static async create({
    directory,
    mechanisms,
    users,
  }: SaslAccountsOptions): Promise<SaslAccounts> {
    const own = join(directory, `sasl-${mechanisms.replaceAll(' ', '-')}`);
    await mkdir(own);
    const database = join(own, 'sasldb2');
    await writeFile(
      join(own, 'libvirt.conf'),
      `mech_list: ${mechanisms}\nsasldb_path: ${database}\nauxprop_plugin: sasldb\n`,
    );
    for (const [user, password] of Object.entries(users)) {
      const options = ['-f', database, '-c', '-p', '-a', 'libvirt', user];
      execFileSync(saslpasswd, options, { input: password });
    }
    const reader = testWorkerUser();
    if (reader !== null) {
      await chown(database, 0, reader.gid);
      await chmod(database, 0o640);
    }
    return new SaslAccounts(own, users);
  }

  /**
   * The environment of a client that logs in as `user`, with another password than the right one if
   * told to.
   */
  async clientEnv(
    user: string,
    password = this.users[user] ?? '',
  ): Promise<Record<string, string>> {
    const file = join(this.directory, `auth-${user}-${password.length}.conf`);
    await writeFile(
      file,
      `[credentials-test]\nauthname=${user}\npassword=${password}\n[auth-libvirt-default]\ncredentials=test\n`,
    );
    return { LIBVIRT_AUTH_FILE: file };
  }
}
