import { unknownProcedure } from '../rpc/call-errors.js';
import type { CallHeader } from '../rpc/frame.js';
import { XdrReader } from '../rpc/xdr-reader.js';
import type { AdminBackend, AdminClient, AdministeredServer } from './backend.js';
import {
  invalid,
  noClient,
  noPriorityWorkers,
  noServer,
  tooManyEntries,
  unknownFlags,
} from './errors.js';
import {
  adminProcedure as procedure,
  encodeClient,
  encodeClientList,
  encodeLoggingFilters,
  encodeLoggingOutputs,
  encodeParameters,
  encodeServer,
  encodeServerList,
  encodeVersion,
  maxListEntries,
  readClientName,
  readOptionalText,
  readParameters,
  readServerName,
  type ClientName,
} from './messages.js';
import {
  identityParameters,
  limitParameters,
  readSettings,
  workerParameters,
} from './parameters.js';

/** What administrators' calls work on. */
export interface Administered {
  readonly backend: AdminBackend;
  /** The first is the daemon's own; the names differ. */
  readonly servers: readonly AdministeredServer[];
}

/** The payload of a reply; nothing stands for an empty one. */
type Reply = Buffer | undefined;

/**
 * One call: its arguments, which are read to their end before anything is looked up, and what they
 * name.
 */
class Call {
  constructor(
    readonly reader: XdrReader,
    readonly administered: Administered,
    private readonly procedure: number,
  ) {}

  get backend(): AdminBackend {
    return this.administered.backend;
  }

  /** The last of the arguments: none is known. */
  flags(): void {
    const flags = this.reader.unsigned('flags');
    if (flags !== 0) throw unknownFlags(flags);
  }

  serverAndFlags(): AdministeredServer {
    const name = readServerName(this.reader);
    this.flags();
    return this.server(name);
  }

  server(name: string): AdministeredServer {
    const server = this.administered.servers.find((known) => known.name === name);
    if (server === undefined) throw noServer(name, this.procedure);
    return server;
  }

  client({ server: name, id }: ClientName): { server: AdministeredServer; client: AdminClient } {
    const server = this.server(name);
    const client = id > BigInt(Number.MAX_SAFE_INTEGER) ? null : server.client(Number(id));
    if (client === null) throw noClient(id, this.procedure);
    return { server, client };
  }
}

type Handler = (call: Call) => Reply | Promise<Reply>;

/**
 * By number. Most work before CONNECT_OPEN too, as in libvirt's daemons; the session itself sees to
 * CONNECT_CLOSE.
 */
const handlers: Readonly<Record<number, Handler>> = {
  [procedure.connectOpen]: (call) => {
    call.flags();
    return undefined;
  },
  [procedure.connectClose]: () => undefined,
  [procedure.connectGetLibVersion]: ({ backend }) => encodeVersion(backend.version),
  [procedure.connectListServers]: (call) => {
    const wanted = call.reader.bool('need_results');
    call.flags();
    return encodeServerList(
      call.administered.servers.map(({ name }) => name),
      wanted,
    );
  },
  [procedure.connectLookupServer]: (call) => encodeServer(call.serverAndFlags().name),
  [procedure.serverGetThreadpoolParameters]: async (call) =>
    encodeParameters(workerParameters(await call.serverAndFlags().workerFigures())),
  [procedure.serverSetThreadpoolParameters]: setThreadpool,
  [procedure.serverListClients]: (call) => {
    const name = readServerName(call.reader);
    const wanted = call.reader.bool('need_results');
    call.flags();
    const clients = [...call.server(name).clients()];
    if (wanted && clients.length > maxListEntries) {
      throw tooManyEntries(clients.length, maxListEntries);
    }
    return encodeClientList(name, clients, wanted);
  },
  [procedure.serverLookupClient]: (call) => {
    const name = readServerName(call.reader);
    const id = call.reader.unsignedHyper('id');
    call.flags();
    return encodeClient(name, call.client({ server: name, id }).client);
  },
  [procedure.clientGetInfo]: (call) => {
    const name = readClientName(call.reader);
    call.flags();
    return encodeParameters(identityParameters(call.client(name).client));
  },
  [procedure.clientClose]: (call) => {
    const name = readClientName(call.reader);
    call.flags();
    const { server, client } = call.client(name);
    server.closeClient(client.id);
    return undefined;
  },
  [procedure.serverGetClientLimits]: (call) =>
    encodeParameters(limitParameters(call.serverAndFlags().clientFigures())),
  [procedure.serverSetClientLimits]: setClientLimits,
  [procedure.connectGetLoggingOutputs]: (call) => {
    call.flags();
    return encodeLoggingOutputs(call.backend.loggingOutputs);
  },
  [procedure.connectGetLoggingFilters]: (call) => {
    call.flags();
    return encodeLoggingFilters(call.backend.loggingFilters);
  },
  [procedure.connectSetLoggingOutputs]: (call) => {
    const text = readOptionalText(call.reader, 'outputs');
    call.flags();
    call.backend.setLoggingOutputs(text);
    return undefined;
  },
  [procedure.connectSetLoggingFilters]: (call) => {
    const text = readOptionalText(call.reader, 'filters');
    call.flags();
    call.backend.setLoggingFilters(text);
    return undefined;
  },
  [procedure.serverUpdateTlsFiles]: async (call) => {
    await call.serverAndFlags().updateTls();
    return undefined;
  },
  [procedure.connectSetDaemonTimeout]: (call) => {
    const seconds = call.reader.unsigned('timeout');
    call.flags();
    call.backend.setIdleTimeout(seconds);
    return undefined;
  },
  [procedure.connectDaemonShutdown]: (call) => {
    call.flags();
    call.backend.shutDown();
    return undefined;
  },
};

/**
 * Does what a call asks for and gives its reply's payload. Rejects with RpcError, XdrError or
 * AdminError.
 */
export async function serveCall(
  header: CallHeader,
  payload: Buffer,
  administered: Administered,
): Promise<Reply> {
  const handle = handlers[header.procedure];
  if (handle === undefined) throw unknownProcedure(header);
  return await handle(new Call(new XdrReader(payload), administered, header.procedure));
}

function setThreadpool(call: Call): undefined {
  const name = readServerName(call.reader);
  const parameters = readParameters(call.reader);
  call.flags();
  const server = call.server(name);
  if (parameters.some(({ field }) => field === 'prioWorkers')) throw noPriorityWorkers;
  const { minWorkers, maxWorkers } = {
    ...server.workerBounds(),
    ...readSettings(parameters, ['minWorkers', 'maxWorkers']),
  };
  if (maxWorkers === 0) throw invalid('maxWorkers must be at least 1');
  if (minWorkers > maxWorkers) {
    throw invalid(`minWorkers (${minWorkers}) must not be above maxWorkers (${maxWorkers})`);
  }
  server.boundWorkers({ minWorkers, maxWorkers });
}

function setClientLimits(call: Call): undefined {
  const name = readServerName(call.reader);
  const parameters = readParameters(call.reader);
  call.flags();
  const server = call.server(name);
  const figures = server.clientFigures();
  const settings = readSettings(parameters, ['nclients_max', 'nclients_unauth_max']);
  const { nclients_max: maxClients = figures.maxClients } = settings;
  const { nclients_unauth_max: maxAnonymousClients = figures.maxAnonymousClients } = settings;
  if (maxClients === 0) throw invalid('nclients_max must be at least 1');
  if (maxClients < maxAnonymousClients) {
    throw invalid(
      `nclients_max (${maxClients}) must not be below nclients_unauth_max (${maxAnonymousClients})`,
    );
  }
  server.boundClients({ maxClients, maxAnonymousClients });
}
