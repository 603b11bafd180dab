import type { KeyRow } from './key-row.js';
import {
  logFiltersText,
  logOutputsText,
  parseLogFilters,
  parseLogOutputs,
} from './log-settings.js';
import { uuid } from './values.js';

const THREADS =
  'it counts threads of the C daemon, while workers in virtproxyd-cluster.ini counts processes';
const ADMIN_THREADS =
  'it counts threads of the C daemon, while one process serves the admin socket';
const AUDIT = 'the driver daemons write the audit messages, so set it in their configuration files';
const HOST_UUID =
  'the driver daemons report the UUID of the host, so set it in their configuration files';
const KEEPALIVE_REQUIRED = 'libvirt no longer uses it either';

/** How the daemon serves: limits, logging, keepalive, and what is left to the driver daemons. */
export const SERVICE_KEYS = {
  max_clients: {
    type: 'uint',
    section: 'limits',
    default: 5000,
    caveat: nobody,
    help:
      'The most clients at a time, over all sockets together. Further ones wait in the queue. ' +
      'Not below max_anonymous_clients.',
  },
  max_queued_clients: {
    type: 'uint',
    section: 'limits',
    default: 1000,
    help:
      'Length of the queue of connections that the daemon has not accepted yet, for each ' +
      'socket.',
  },
  max_anonymous_clients: {
    type: 'uint',
    section: 'limits',
    default: 20,
    help: 'The most accepted clients that have not authenticated yet. 0 means no limit.',
  },
  min_workers: {
    type: 'uint',
    section: 'limits',
    default: 5,
    ignored: THREADS,
    help: 'The least threads.',
  },
  max_workers: {
    type: 'uint',
    section: 'limits',
    default: 20,
    min: 1,
    ignored: THREADS,
    help: 'The most threads.',
  },
  prio_workers: {
    type: 'uint',
    section: 'limits',
    default: 5,
    ignored: THREADS,
    help: 'Threads for urgent calls.',
  },
  max_client_requests: {
    type: 'uint',
    section: 'limits',
    default: 5,
    read: atLeastOne,
    caveat: noCalls,
    help:
      'The most calls of one client that are under way at a time. Further ones wait, without ' +
      'holding back keepalive messages.',
  },

  admin_min_workers: {
    type: 'uint',
    section: 'admin',
    default: 5,
    ignored: ADMIN_THREADS,
    help: 'The least threads for the admin socket.',
  },
  admin_max_workers: {
    type: 'uint',
    section: 'admin',
    default: 20,
    ignored: ADMIN_THREADS,
    help: 'The most threads for the admin socket.',
  },
  admin_max_clients: {
    type: 'uint',
    section: 'admin',
    default: 5000,
    caveat: nobody,
    help: 'As max_clients, for the admin socket.',
  },
  admin_max_queued_clients: {
    type: 'uint',
    section: 'admin',
    default: 20,
    help: 'As max_queued_clients, for the admin socket.',
  },
  admin_max_client_requests: {
    type: 'uint',
    section: 'admin',
    default: 5,
    read: atLeastOne,
    caveat: noCalls,
    help: 'As max_client_requests, for the admin socket.',
  },

  log_level: {
    type: 'uint',
    section: 'logging',
    default: 3,
    max: 4,
    read: levelOrDefault,
    help:
      'The least level that is logged: 1 debug, 2 info, 3 warning, 4 error. Level 1 writes ' +
      'lines for every call. 0 is as good as no value.',
  },
  log_filters: {
    type: 'string',
    section: 'logging',
    default: null,
    unset: 'log_level for everything',
    example: '1:relay 4:reception',
    read: filtersRead,
    help:
      'Levels for single components, as LEVEL:MATCH items separated by spaces. An item holds ' +
      'for the components whose name contains MATCH, in which * is any text and ? any ' +
      'character; the first that fits counts. LOGGING ' +
      'in virtproxyd(8) lists the components.',
  },
  log_outputs: {
    type: 'string',
    section: 'logging',
    default: null,
    unset: 'standard error; in the background journald or a file',
    example: '3:syslog:virtproxyd 1:file:/var/log/libvirt/virtproxyd.log',
    read: outputsRead,
    caveat: relativeFile,
    help:
      'Where the log goes, as items separated by spaces: LEVEL:stderr, LEVEL:journald, ' +
      'LEVEL:syslog:NAME or LEVEL:file:PATH. Each gets what is of its level or above and not ' +
      'held back by log_level and log_filters. Files are for their owner alone and are opened ' +
      'again at SIGHUP.',
  },

  audit_level: {
    type: 'uint',
    section: 'audit',
    default: 1,
    ignored: AUDIT,
    help:
      "0 turns auditing off; 1 audits where the host's audit subsystem can be used; 2 refuses " +
      'to start without it.',
  },
  audit_logging: {
    type: 'bool',
    section: 'audit',
    default: false,
    ignored: AUDIT,
    help: 'Whether to write audit messages to the log as well.',
  },

  host_uuid: {
    type: 'string',
    section: 'host',
    default: null,
    unset: 'from host_uuid_source',
    example: '6f2c1a52-8f0e-4c4b-9d3a-0b7e5c1d2e48',
    read: uuid,
    ignored: HOST_UUID,
    help: 'UUID of the host.',
  },
  host_uuid_source: {
    type: 'enum',
    values: ['smbios', 'machine-id'],
    section: 'host',
    default: 'smbios',
    ignored: HOST_UUID,
    help: 'Where the UUID of the host is taken from: "smbios" or "machine-id".',
  },

  keepalive_interval: {
    type: 'int',
    section: 'keepalive',
    default: 5,
    help:
      'Seconds of silence after which a client is sent a keepalive message. 0 and less send ' +
      "none; the client's own are answered all the same.",
  },
  keepalive_count: {
    type: 'uint',
    section: 'keepalive',
    default: 5,
    help:
      'How many keepalive messages a client may leave unanswered. The connection ends after ' +
      'keepalive_interval * (keepalive_count + 1) seconds of silence.',
  },
  keepalive_required: {
    type: 'bool',
    section: 'keepalive',
    default: false,
    ignored: KEEPALIVE_REQUIRED,
    unread: true,
    help: 'Whether clients must support keepalive messages.',
  },
  admin_keepalive_interval: {
    type: 'int',
    section: 'keepalive',
    default: 5,
    help:
      'As keepalive_interval, for the admin socket. Only clients that have sent a keepalive ' +
      'message themselves are sent any, since virt-admin does not answer them.',
  },
  admin_keepalive_count: {
    type: 'uint',
    section: 'keepalive',
    default: 5,
    help: 'As keepalive_count, for the admin socket.',
  },
  admin_keepalive_required: {
    type: 'bool',
    section: 'keepalive',
    default: false,
    ignored: KEEPALIVE_REQUIRED,
    unread: true,
    help: 'Whether clients of the admin socket must support keepalive messages.',
  },

  ovs_timeout: {
    type: 'uint',
    section: 'other',
    default: 5,
    ignored:
      'the driver daemons run the Open vSwitch commands, so set it in their configuration files',
    help: 'Seconds after which a call of Open vSwitch is given up.',
  },
} as const satisfies Record<string, KeyRow>;

function nobody(clients: number): string | null {
  return clients === 0 ? 'is 0: no client is let in' : null;
}

function atLeastOne(calls: number): number {
  return Math.max(calls, 1);
}

function noCalls(calls: number): string | null {
  return calls === 0 ? 'is 0, with which no call would be answered: 1 counts instead' : null;
}

function levelOrDefault(level: number): number {
  return level === 0 ? SERVICE_KEYS.log_level.default : level;
}

function filtersRead(text: string): string {
  return logFiltersText(parseLogFilters(text));
}

/** With absolute paths. */
function outputsRead(text: string, directory: string): string {
  return logOutputsText(parseLogOutputs(text, directory));
}

function relativeFile(written: string, outputs: string): string | null {
  return /:file:[^/]/.test(written) ? `is "${written}", which means "${outputs}"` : null;
}
