import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from '../config/paths.js';

/** A file that libsasl2 opens for logins. */
export interface SaslFile {
  /** What it is, for messages. */
  readonly what: string;
  readonly path: string;
  readonly isSocket: boolean;
}

/** Where libsasl2 looks for libvirt.conf unless $SASL_CONF_PATH says; the first there is counts. */
const configurationDirectories = ['/etc/sasl2', '/etc/sasl', '/usr/lib/sasl2', '/usr/lib64/sasl2'];

/** Of sasldb_path, as distributions build it in. */
const defaultDatabases = ['/etc/sasldb2', '/etc/sasl2/sasldb2'];
const defaultKeytab = '/etc/krb5.keytab';
const defaultSocket = '/run/saslauthd/mux';

/** Mechanisms whose server has no password to look up. */
const withoutPasswords = new Set(['ANONYMOUS', 'EXTERNAL', 'GSSAPI', 'GSS-SPNEGO', 'KERBEROS_V4']);
/** Those to which the client tells the password. */
const withPlainPasswords = new Set(['LOGIN', 'PLAIN']);
const withKeytab = new Set(['GSSAPI', 'GSS-SPNEGO']);

/**
 * The files on this host that SASL logins as application "libvirt" read: libvirt.conf itself, and
 * what it and its defaults name for the mechanisms it offers: sasldb, which is opened for reading
 * only, a keytab, the socket of saslauthd. `installed` are the mechanisms of the plug-ins there
 * are, which are all offered where mech_list does not choose. Throws the system's error.
 */
export function saslFiles(env: Environment, installed: readonly string[]): SaslFile[] {
  const directories = env['SASL_CONF_PATH']?.split(':') ?? configurationDirectories;
  const configuration = directories.map((each) => join(each, 'libvirt.conf')).find(existsSync);
  const options =
    configuration === undefined ? new Map<string, string>() : readOptions(configuration);
  const wordsOf = (key: string): readonly string[] | undefined =>
    options.get(key)?.split(/\s+/).filter(Boolean);
  const offered = (wordsOf('mech_list') ?? installed).map((name) => name.toUpperCase());
  const checks = wordsOf('pwcheck_method') ?? ['auxprop'];
  const stores = wordsOf('auxprop_plugin') ?? ['sasldb'];
  const takesPlain = offered.some((name) => withPlainPasswords.has(name));
  const looksUp = offered.some(
    (name) =>
      !withoutPasswords.has(name) && (!withPlainPasswords.has(name) || checks.includes('auxprop')),
  );
  return [
    ...file('its configuration', configuration),
    ...(looksUp && stores.includes('sasldb')
      ? file('its passwords', options.get('sasldb_path') ?? defaultDatabases.find(existsSync))
      : []),
    ...(offered.some((name) => withKeytab.has(name))
      ? file('its Kerberos keys', options.get('keytab') ?? keytabOf(env))
      : []),
    ...(takesPlain && checks.includes('saslauthd')
      ? socket("saslauthd's socket", options.get('saslauthd_path') ?? defaultSocket)
      : []),
  ].filter(({ path }) => existsSync(path));
}

const file = (what: string, path: string | undefined): SaslFile[] =>
  path === undefined ? [] : [{ what, path, isSocket: false }];

const socket = (what: string, path: string): SaslFile[] => [{ what, path, isSocket: true }];

/** As the Kerberos library has it, but for what krb5.conf says. */
function keytabOf(env: Environment): string {
  return env['KRB5_KTNAME']?.replace(/^(WR)?FILE:/, '') ?? defaultKeytab;
}

/** `KEY: VALUE`, one to a line. The first counts, as in libsasl2. Throws the system's error. */
function readOptions(path: string): Map<string, string> {
  const options = new Map<string, string>();
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    const [, key, value] = /^\s*([A-Za-z0-9_-]+):\s*(.*?)\s*$/.exec(line) ?? [];
    if (key === undefined || value === undefined) continue;
    if (!options.has(key.toLowerCase())) options.set(key.toLowerCase(), value);
  }
  return options;
}
