import {
  absolutePath,
  daemonSocket,
  listenAddress,
  memoryLimit,
  oneOf,
  seconds,
  wholeNumber,
  workerCount,
} from './values.js';

/** One key of the cluster's ini file. */
export interface ClusterRow {
  /** What the sample file and the manual page call the value. */
  readonly type: string;
  /** As it would be written in the file; null means off. */
  readonly default: string | null;
  /** The sample file's value where the default is null. */
  readonly example?: string;
  /** Gives the value, or throws a ValueError. */
  readonly parse: (text: string) => number | string;
  /** Sentences for the sample file and the manual page. */
  readonly help: string;
}

/** The sections of the cluster's ini file with their keys, except [routes], whose keys are drivers. */
export const CLUSTER_KEYS = {
  cluster: {
    workers: {
      type: 'auto or a number',
      default: 'auto',
      parse: workerCount,
      help: 'The number of worker processes. auto means one for each core, but at most 4.',
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
} as const satisfies Record<string, Record<string, ClusterRow>>;

/** The section that says where daemons are: a key is a driver, or `default`, and its value a socket. */
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
  [Key in keyof Section]: Section[Key]['default'] extends null
    ? ReturnType<Section[Key]['parse']> | null
    : ReturnType<Section[Key]['parse']>;
};

/** [cluster]: times in seconds (0 in `drain_timeout` is no limit), memory in bytes (0 is no limit). */
export type ClusterSettings = SectionSettings<(typeof CLUSTER_KEYS)['cluster']>;

/** [metrics]: null is off. */
export type MetricsSettings = SectionSettings<(typeof CLUSTER_KEYS)['metrics']>;

/** [log]: a null `audit` is off. */
export type LogSettings = SectionSettings<(typeof CLUSTER_KEYS)['log']>;
