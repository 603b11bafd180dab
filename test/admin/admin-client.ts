import { adminProcedure } from '../../lib/admin/messages.js';
import { program, status } from '../../lib/rpc/frame.js';
import {
  readTypedParameters,
  writeTypedParameters,
  type TypedParameter,
} from '../../lib/rpc/typed-parameters.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { RawClient, readError, type WireError } from '../peers/raw-client.js';

/** A client as a server lists it. */
export interface ListedClient {
  readonly server: string;
  readonly id: number;
  /** Seconds since the epoch. */
  readonly timestamp: number;
  readonly transport: number;
}

/** What a call was answered with instead of what it asked for. */
class Refusal extends Error {
  constructor(readonly wire: WireError) {
    super(wire.message ?? '');
  }
}

export const unsigned = (field: string, value: number): TypedParameter => ({
  field,
  type: 'unsigned',
  value,
});

/** A client of the admin program that says whatever it is told to. */
export class AdminClient extends RawClient {
  static override async connect(path: string): Promise<AdminClient> {
    return new AdminClient(await FrameSocket.connectSocket(path));
  }

  /** Sends a call and resolves with its reply, be it an error. */
  admin(
    number: number,
    write: (writer: XdrWriter) => void = () => undefined,
  ): Promise<ReceivedFrame> {
    const writer = new XdrWriter();
    write(writer);
    return this.call(number, Buffer.from(writer.finish()), { program: program.admin });
  }

  /** Sends a call and resolves with a reader of its reply's payload; rejects with Refusal. */
  async ask(number: number, write?: (writer: XdrWriter) => void): Promise<XdrReader> {
    const reply = await this.admin(number, write);
    if (reply.status === status.error) throw new Refusal(readError(reply));
    return new XdrReader(reply.payload);
  }

  /** What a call is refused with; rejects when it succeeds. */
  async refused(number: number, write?: (writer: XdrWriter) => void): Promise<WireError> {
    const reply = await this.admin(number, write);
    return readError(reply);
  }

  async servers(): Promise<string[]> {
    const reader = await this.ask(adminProcedure.connectListServers, (writer) =>
      writer.unsigned(1).unsigned(0),
    );
    const count = reader.unsigned('count');
    return Array.from({ length: count }, () => reader.string('name', 100));
  }

  async clients(server: string): Promise<ListedClient[]> {
    const reader = await this.ask(adminProcedure.serverListClients, (writer) =>
      writer.string(server).unsigned(1).unsigned(0),
    );
    const count = reader.unsigned('count');
    return Array.from({ length: count }, () => readClient(reader));
  }

  async lookup(server: string, id: number): Promise<ListedClient> {
    return readClient(
      await this.ask(adminProcedure.serverLookupClient, (writer) =>
        writer.string(server).unsignedHyper(BigInt(id)).unsigned(0),
      ),
    );
  }

  clientInfo(server: string, id: number): Promise<Record<string, unknown>> {
    return this.parameters(adminProcedure.clientGetInfo, (writer) =>
      nameClient(writer, server, id).unsigned(0),
    );
  }

  async disconnect(server: string, id: number): Promise<void> {
    await this.ask(adminProcedure.clientClose, (writer) =>
      nameClient(writer, server, id).unsigned(0),
    );
  }

  threadpool(server: string): Promise<Record<string, unknown>> {
    return this.parameters(adminProcedure.serverGetThreadpoolParameters, (writer) =>
      writer.string(server).unsigned(0),
    );
  }

  limits(server: string): Promise<Record<string, unknown>> {
    return this.parameters(adminProcedure.serverGetClientLimits, (writer) =>
      writer.string(server).unsigned(0),
    );
  }

  async set(number: number, server: string, ...parameters: TypedParameter[]): Promise<void> {
    await this.ask(number, (writer) => settings(writer, server, parameters));
  }

  /** What setting the parameters is refused with. */
  refusedSetting(
    number: number,
    server: string,
    ...parameters: TypedParameter[]
  ): Promise<WireError> {
    return this.refused(number, (writer) => settings(writer, server, parameters));
  }

  private async parameters(
    number: number,
    write: (writer: XdrWriter) => void,
  ): Promise<Record<string, unknown>> {
    const parameters = readTypedParameters(await this.ask(number, write), 64);
    return Object.fromEntries(parameters.map(({ field, value }) => [field, value]));
  }
}

/** A client as a call's argument; what is said of it beside name and id is made up. */
export const nameClient = (writer: XdrWriter, server: string, id: number): XdrWriter =>
  writer.string(server).unsignedHyper(BigInt(id)).hyper(77n).unsigned(99);

function settings(
  writer: XdrWriter,
  server: string,
  parameters: readonly TypedParameter[],
): XdrWriter {
  writer.string(server);
  writeTypedParameters(writer, parameters);
  return writer.unsigned(0);
}

function readClient(reader: XdrReader): ListedClient {
  return {
    server: reader.string('server', 100),
    id: Number(reader.unsignedHyper('id')),
    timestamp: Number(reader.hyper('timestamp')),
    transport: reader.unsigned('transport'),
  };
}
