/**
 * Certificates for TLS tests, made with certtool as libvirt's guide says: an authority, what it
 * issues, its revocation lists, and the directories that `?pkipath=` of a libvirt URI names.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/** What this machine lacks to make certificates, as a phrase for a test's title. */
export function certificatesLacking(...programs: string[]): string | undefined {
  const lacking = ['certtool', ...programs].filter(
    (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0,
  );
  return lacking.length === 0 ? undefined : `needs ${lacking.join(', ')}`;
}

/** Paths of a PEM certificate and of its key. */
export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

/** Lines of a certtool template that set when a certificate is valid. */
export const validity = {
  valid: ['expiration_days = 30'],
  expired: [
    'activation_date = "2020-01-01 00:00:00 UTC"',
    'expiration_date = "2021-01-01 00:00:00 UTC"',
  ],
  notYetValid: [
    'activation_date = "2048-01-01 00:00:00 UTC"',
    'expiration_date = "2049-01-01 00:00:00 UTC"',
  ],
} as const;

/** Lines of a certtool template that set what a certificate is for. */
export const purpose = {
  authority: ['ca', 'cert_signing_key', 'crl_signing_key'],
  client: ['tls_www_client', 'signing_key', 'encryption_key'],
  server: [
    'tls_www_server',
    'signing_key',
    'encryption_key',
    'dns_name = "localhost"',
    'ip_address = "127.0.0.1"',
    'ip_address = "::1"',
  ],
} as const;

export interface CertificateOptions {
  /** Lines of a certtool template about the name; `cn = NAME` when left out. */
  readonly name?: readonly string[];
  readonly validity?: readonly string[];
  /** Default: a client's, or an authority's for one. */
  readonly purpose?: readonly string[];
  /** Path of the key. Default: one that all of the directory share, as generating takes long. */
  readonly key?: string;
}

/** When a revocation list was made and when the next is due; default: now and in 30 days. */
export interface RevocationOptions {
  readonly thisUpdate?: string;
  readonly nextUpdate?: string;
}

/**
 * A certificate authority whose files are in one directory. The keys are RSA, since libvirt 9
 * refuses certificates without key encipherment, which certtool does not give to other keys.
 */
export class Authority implements CertificateFiles {
  private constructor(
    private readonly directory: string,
    readonly cert: string,
    readonly key: string,
  ) {}

  /** Makes a self-signed one. `name` is the common name and the base name of its files. */
  static create(directory: string, name: string, options: CertificateOptions = {}): Authority {
    const files = reserve(directory, name);
    generateKey(files.key);
    const template = writeTemplate(files.cert, name, { purpose: purpose.authority, ...options });
    certtool('--generate-self-signed', ['load-privkey', files.key], template, files.cert);
    return new Authority(directory, files.cert, files.key);
  }

  issue(name: string, options: CertificateOptions = {}): CertificateFiles {
    const key = options.key ?? join(this.directory, 'shared-key.pem');
    if (!existsSync(key)) generateKey(key);
    return this.#sign({ cert: reserve(this.directory, name).cert, key }, name, options);
  }

  /** Issues the certificate of a subordinate authority with a key of its own. */
  subordinate(name: string, options: CertificateOptions = {}): Authority {
    const files = reserve(this.directory, name);
    generateKey(files.key);
    this.#sign(files, name, { purpose: purpose.authority, ...options });
    return new Authority(this.directory, files.cert, files.key);
  }

  /** Writes a revocation list and returns its path. */
  revoke(
    name: string,
    certificates: readonly CertificateFiles[],
    options: RevocationOptions = {},
  ): string {
    const list = join(this.directory, `${name}.pem`);
    const template = `${list}.template`;
    const lines = ['crl_number = 1', 'crl_next_update = 30'];
    if (options.thisUpdate !== undefined) {
      lines.push(`crl_this_update_date = "${options.thisUpdate}"`);
    }
    if (options.nextUpdate !== undefined) {
      lines.push(`crl_next_update_date = "${options.nextUpdate}"`);
    }
    writeFileSync(template, `${lines.join('\n')}\n`);
    const inputs = [...this.#signer()];
    if (certificates.length > 0) {
      // certtool takes the option once only, with all of them in one file.
      const revoked = `${list}.revoked`;
      writeFileSync(revoked, certificates.map(({ cert }) => readFileSync(cert, 'utf8')).join(''));
      inputs.push('load-certificate', revoked);
    }
    certtool('--generate-crl', inputs, template, list);
    return list;
  }

  /** Makes a directory for `?pkipath=` with this authority and `client`, and returns its path. */
  async pkiDirectory(name: string, client: CertificateFiles | null): Promise<string> {
    const directory = join(this.directory, name);
    await mkdir(directory);
    await copyFile(this.cert, join(directory, 'cacert.pem'));
    if (client !== null) {
      await copyFile(client.cert, join(directory, 'clientcert.pem'));
      await copyFile(client.key, join(directory, 'clientkey.pem'));
    }
    return directory;
  }

  #sign(files: CertificateFiles, name: string, options: CertificateOptions): CertificateFiles {
    const template = writeTemplate(files.cert, name, options);
    certtool(
      '--generate-certificate',
      ['load-privkey', files.key, ...this.#signer()],
      template,
      files.cert,
    );
    return files;
  }

  #signer(): readonly string[] {
    return ['load-ca-certificate', this.cert, 'load-ca-privkey', this.key];
  }
}

function reserve(directory: string, name: string): CertificateFiles {
  return { cert: join(directory, `${name}.pem`), key: join(directory, `${name}-key.pem`) };
}

function generateKey(file: string): void {
  execFileSync(
    'certtool',
    ['--generate-privkey', '--key-type', 'rsa', '--bits', '2048', '--outfile', file],
    { stdio: 'pipe' },
  );
}

function writeTemplate(cert: string, name: string, options: CertificateOptions): string {
  const template = `${cert}.template`;
  const lines = [
    ...(options.name ?? [`cn = "${name}"`]),
    ...(options.validity ?? validity.valid),
    ...(options.purpose ?? purpose.client),
  ];
  writeFileSync(template, `${lines.join('\n')}\n`);
  return template;
}

/** `inputs` are option names, each followed by its value. */
function certtool(
  action: string,
  inputs: readonly string[],
  template: string,
  outfile: string,
): void {
  const options = inputs.map((text, index) => (index % 2 === 0 ? `--${text}` : text));
  execFileSync('certtool', [action, ...options, '--template', template, '--outfile', outfile], {
    stdio: 'pipe',
  });
}
