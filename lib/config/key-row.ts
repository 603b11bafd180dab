import type { ListenerKey } from './errors.js';
import type { Mode } from './paths.js';

const ACTIVATION = 'Without effect under socket activation.';

/**
 * The groups of keys in the order of the sample file, with a title and what holds for all keys in
 * it.
 */
export const SECTIONS = {
  network: { title: 'Network listeners', note: ACTIVATION },
  unix: { title: 'UNIX sockets', note: ACTIVATION },
  authentication: { title: 'Authentication', note: '' },
  tls: {
    title: 'TLS certificates',
    note:
      'In session mode files in ~/.pki/libvirt come first where they exist: cacert.pem, cacrl.pem, ' +
      'and servercert.pem together with serverkey.pem.',
  },
  access: { title: 'Who is let in', note: '' },
  limits: { title: 'Limits', note: '' },
  admin: { title: 'Limits of the admin socket', note: '' },
  logging: { title: 'Logging', note: '' },
  audit: { title: 'Audit', note: '' },
  host: { title: 'Identity of the host', note: '' },
  keepalive: { title: 'Keepalive', note: '' },
  other: { title: 'Other', note: '' },
} as const;

/** A default that is the same in both modes, or one for each. */
export type ByMode<Value> = Value | Readonly<Record<Mode, Value>>;

interface RowOf<Type extends string, Value, Default> {
  readonly type: Type;
  readonly section: keyof typeof SECTIONS;
  /** What holds when the key is not set; null means unset, which `unset` then explains. */
  readonly default: Default;
  /** Describes the default where its value cannot; needed for null. */
  readonly unset?: string;
  /** The sample file's value where the default cannot stand there; needed for null. */
  readonly example?: Value;
  /**
   * Gives a value as the daemon uses it; relative paths begin at `directory`. Throws a ValueError
   * for values that the type allows and the key does not.
   */
  readonly read?: (written: Value, directory: string) => Value;
  /**
   * What to warn of about a value that can be used; continues a sentence that begins with the key.
   */
  readonly caveat?: (written: Value, value: Value) => string | null;
  /**
   * The key counts only while one of these listeners is on: until then a value that `read` refuses
   * is overlooked.
   */
  readonly needs?: readonly ListenerKey[];
  /** Why the key has no effect here, though it may be set. */
  readonly ignored?: string;
  /** The C daemon does not look at the value at all, so that it may be of any type. */
  readonly unread?: true;
  /** Sentences for the sample file and the manual page. */
  readonly help: string;
}

interface Bounded {
  readonly min?: number;
  readonly max?: number;
}

/**
 * One key of virtproxyd.conf. `uint` has 32 bits, `int` 32 with sign, unless `min` and `max` are
 * narrower.
 */
export type KeyRow =
  | RowOf<'bool', boolean, boolean>
  | (RowOf<'uint' | 'int', number, number> & Bounded)
  | RowOf<'string' | 'port', string, ByMode<string> | null>
  | (RowOf<'enum', string, ByMode<string> | null> & {
      readonly values: readonly string[];
      /**
       * Words that the key's sisters take, with why it does not. C refuses them only when the key
       * counts.
       */
      readonly unfit?: Readonly<Record<string, string>>;
    })
  | RowOf<'string-list', readonly string[], null>;

type ValueOf<Row extends KeyRow> = Row extends { type: 'bool' }
  ? boolean
  : Row extends { type: 'uint' | 'int' }
    ? number
    : Row extends { type: 'enum'; values: readonly (infer Word)[] }
      ? Word
      : Row extends { type: 'string-list' }
        ? string[]
        : string;

/**
 * The settings that a table of rows describes: one property a key, null only where the default is
 * null.
 */
export type SettingsOf<Table extends Record<string, KeyRow>> = {
  [Key in keyof Table]: Table[Key]['default'] extends null
    ? ValueOf<Table[Key]> | null
    : ValueOf<Table[Key]>;
};
