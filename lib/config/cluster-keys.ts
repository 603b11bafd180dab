import {
  absolutePath,
  account,
  addressRange,
  daemonSocket,
  listenAddress,
  memoryLimit,
  oneOf,
  seconds,
  text,
  wholeNumber,
  wordsOf,
  workerCount,
} from './values.js';

interface RowOf<Value> {
  /** What the sample file and the manual page call the value. */
  readonly type: string;
  /** Gives the value, or throws a ValueError. */
  readonly parse: (text: string) => Value;
  /** Sentences for the sample file and the manual page. */
  readonly help: string;
}

/** A key with one value. */
export interface SingleRow extends RowOf<number | string> {
  /** As it would be written in the file; null means off. */
  readonly default: string | null;
  /** The sample file's value where the default is null. */
  readonly example?: string;
}

/**
 * A key with any number of values: those of all its lines, of which each but one must be written
 * `KEY[] = VALUE`.
 */
export interface ListRow extends RowOf<readonly string[]> {
  /** The sample file's lines. */
  readonly examples: readonly string[];
}

/** One key of the cluster's ini file. */
export type ClusterRow = SingleRow | ListRow;

export const isList = (row: Pick<ClusterRow, 'parse'>): row is ListRow => 'examples' in row;

/** For a list with one value on each line. */
const one =
  (parse: (text: string) => string) =>
  (written: string): readonly string[] => [parse(written)];

/**
 * The sections of which an unknown key is an error: what it was to keep somebody from, he could do.
 */
export const STRICT_SECTIONS: ReadonlySet<string> = new Set(['access']);

/**
 * The sections of the cluster's ini file with their keys, except [routes], whose keys are drivers.
 */
export const CLUSTER_KEYS = {
  cluster: {
    workers: {
      type: 'auto or a number',
      default: 'auto',
      parse: workerCount,
      help: 'The most worker processes. auto means one for each core, but at most 4.',
    },
    min_workers: {
      type: 'auto or a number',
      default: '1',
      parse: workerCount,
      help:
        'The fewest worker processes, with which the daemon begins. More come while those there ' +
        'are busy or have many clients. The same as workers: there are always as many.',
    },
    worker_idle_timeout: {
      type: 'seconds',
      default: '60',
      parse: seconds(1),
      help:
        'How long one worker fewer must have been enough, without a break, before one takes no ' +
        'more clients and ends with its last one.',
    },
    worker_user: {
      type: 'user',
      default: null,
      example: 'virtproxyd',
      parse: account,
      help:
        'The user, by name or number, that worker processes run as, with its primary group alone: ' +
        'they are what reads the bytes of strangers. It must be able to read the program and what ' +
        'SASL logins need; nobody else should run as this user. Without it workers run as root. In ' +
        'session mode they run as the user of the session, and this is ignored. The hooks of the ' +
        'daemon cannot gain privileges then, by way of sudo for instance.',
    },
    drain_timeout: {
      type: 'seconds',
      default: '0',
      parse: seconds(0),
      help:
        'How long the workers of the old configuration may serve their clients after a ' +
        'reload. 0 means until the clients leave.',
    },
    stop_timeout: {
      type: 'seconds',
      default: '5',
      parse: seconds(0),
      help: 'How long replies to calls under way are waited for when the daemon ends.',
    },
    login_timeout: {
      type: 'seconds',
      default: '30',
      parse: seconds(0.1),
      help: 'How long a client may take to log in and to open its connection.',
    },
    open_timeout: {
      type: 'seconds',
      default: '30',
      parse: seconds(0.1),
      help: 'How long a driver daemon may take to answer when a connection to it is opened.',
    },
    daemon_restart_timeout: {
      type: 'seconds',
      default: '10',
      parse: seconds(0),
      help:
        'How long the calls of clients wait for a driver daemon that has gone away to come back. ' +
        'They get its answers then, and events they had asked for go on. 0 means that calls fail ' +
        'at once and events end, as with the C daemon.',
    },
    max_daemon_reopenings: {
      type: 'number',
      default: '32',
      parse: wholeNumber(1, 10_000),
      help:
        'How many connections to daemons that have come back each worker opens at a time, so ' +
        'that all their clients at once do not drown them.',
    },
    max_worker_memory: {
      type: 'bytes',
      default: '0',
      parse: memoryLimit,
      help:
        'A worker that uses more memory is replaced by a new one. Suffixes K, M and G stand ' +
        'for powers of 1024. 0 means no limit; otherwise at least 64M. Set it where many log in ' +
        'by DIGEST-MD5 over plain TCP: its plug-in in Debian 12 loses 30 KiB at each login.',
    },
  },
  metrics: {
    listen: {
      type: 'address:port or path',
      default: null,
      example: '127.0.0.1:9177',
      parse: listenAddress,
      help:
        'Where metrics and the status page are offered over HTTP, to whoever can connect: an ' +
        'address with a port, the address in brackets if it is IPv6, or the absolute path of a ' +
        'UNIX socket, which is for its owner alone.',
    },
  },
  log: {
    format: {
      type: 'libvirt or json',
      default: 'libvirt',
      parse: oneOf(['libvirt', 'json']),
      help:
        "Format of the log's lines: as other libvirt daemons write them, or one JSON object " +
        'each.',
    },
    audit: {
      type: 'path',
      default: null,
      example: '/var/log/libvirt/virtproxyd-audit.log',
      parse: absolutePath,
      help:
        'File that gets one line of JSON for every call that may change something: who called, ' +
        'what, of which daemon, with what result. It is for its owner alone and is opened again ' +
        'at SIGHUP.',
    },
  },
  access: {
    read_only_dn_list: {
      type: 'distinguished names',
      parse: one(text),
      examples: ['C=GB,O=Example,CN=monitor*', 'C=GB,O=Example,OU=Dashboards,*'],
      help:
        'Clients whose certificate has one of these names, written as virt-pki-query-dn prints ' +
        'them. * stands for any text and ? for any one character.',
    },
    read_only_username_list: {
      type: 'SASL user names',
      parse: one(text),
      examples: ['exporter@EXAMPLE.COM', '*@GUESTS.EXAMPLE.COM'],
      help:
        'Clients with one of these SASL user names. * stands for any text and ? for any one ' +
        'character.',
    },
    read_only_users: {
      type: 'users',
      parse: one(account),
      examples: ['prometheus', '1005'],
      help: 'Clients of the UNIX sockets that run as one of these users, by name or number.',
    },
    read_only_groups: {
      type: 'groups',
      parse: one(account),
      examples: ['monitoring', '2001'],
      help:
        'Clients of the UNIX sockets that belong to one of these groups, by name or number: their ' +
        'process does, or their user according to the databases of the host.',
    },
    read_only_addresses: {
      type: 'addresses',
      parse: one(addressRange),
      examples: ['192.0.2.7', '198.51.100.0/24', '2001:db8::/32'],
      help:
        'Clients of TCP and TLS that come from one of these addresses or networks (CIDR), IPv4 or ' +
        'IPv6. An IPv4 address stands for its form in IPv6, ::ffff:192.0.2.7, as well.',
    },
    read_only_listeners: {
      type: 'unix, tcp, tls',
      parse: wordsOf(['unix', 'tcp', 'tls']),
      examples: ['tcp tls'],
      help: 'All clients of these listeners; unix is the read-write socket.',
    },
  },
} as const satisfies Record<string, Record<string, ClusterRow>>;

/** What the sample file and the manual page say of whole sections. */
export const SECTION_NOTES: Readonly<Partial<Record<string, string>>> = {
  access:
    'Clients that may only look: whoever any of these lists names gets a read-only connection, as ' +
    'on libvirt-sock-ro, whatever flags it asks for. They let nobody in who is not let in without ' +
    'them. It is decided once, after the login; a reload changes it for new clients. A list has one ' +
    'value, KEY = VALUE, or several on lines of their own, KEY[] = VALUE. A value with ; or # in it ' +
    'goes into single quotes. A key that is not one of these is an error here.',
};

/**
 * The section that says where daemons are: a key is a driver, or `default`, and its value a socket.
 */
export const ROUTES = {
  section: 'routes',
  default: 'default',
  driver: /^[a-z][a-z0-9]*$/,
  parse: daemonSocket,
  help:
    'Where the read-write sockets of daemons are, if not at the usual place. A key is the name of ' +
    'a driver (qemu, lxc, network, storage and so on) and its value an absolute path. default ' +
    'stands for all drivers that are not named, so that a monolithic libvirtd can be behind the ' +
    'proxy. In system mode read-only connections use the same path with -ro added.',
  examples: { qemu: '/run/libvirt/virtqemud-sock', default: '/run/libvirtd/libvirt-sock' },
} as const;

type SectionSettings<Section extends Record<string, ClusterRow>> = {
  [Key in keyof Section]: Section[Key] extends { default: null }
    ? ReturnType<Section[Key]['parse']> | null
    : ReturnType<Section[Key]['parse']>;
};

/**
 * [cluster]: times in seconds (0 in `drain_timeout` is no limit), memory in bytes (0 is no limit).
 */
export type ClusterSettings = SectionSettings<(typeof CLUSTER_KEYS)['cluster']>;

/** [metrics]: null is off. */
export type MetricsSettings = SectionSettings<(typeof CLUSTER_KEYS)['metrics']>;

/** [log]: a null `audit` is off. */
export type LogSettings = SectionSettings<(typeof CLUSTER_KEYS)['log']>;

export type AccessKey = keyof (typeof CLUSTER_KEYS)['access'];

/** [access]: an empty list names nobody. */
export type AccessSettings = Readonly<Record<AccessKey, readonly string[]>>;
