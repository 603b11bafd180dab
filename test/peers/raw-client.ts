import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { keepalive, messageType, program, status, type FrameHeader } from '../../lib/rpc/frame.js';
import { encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { FrameSocket, frameOf, type ReceivedFrame } from './frame-socket.js';

/** The error struct of the wire. */
export interface WireError {
  readonly code: number;
  readonly domain: number;
  readonly message: string | null;
  readonly level: number;
  readonly str1: string | null;
  readonly str2: string | null;
  readonly str3: string | null;
  readonly int1: number;
  readonly int2: number;
}

const maxText = 4_194_304;

/**
 * Reads the error that a REPLY or STREAM frame carries; throws when the frame's status is another.
 */
export function readError(frame: ReceivedFrame): WireError {
  if (frame.status !== status.error)
    throw new Error(`A frame of status ${frame.status}: no error.`);
  const reader = new XdrReader(frame.payload);
  const text = (field: string): string | null =>
    reader.optional(field, () => reader.string(field, maxText));
  const code = reader.int('code');
  const domain = reader.int('domain');
  const message = text('message');
  const level = reader.int('level');
  if (reader.bool('dom')) throw new Error('An error with a domain object: not read here.');
  const str1 = text('str1');
  const str2 = text('str2');
  const str3 = text('str3');
  return {
    code,
    domain,
    message,
    level,
    str1,
    str2,
    str3,
    int1: reader.int('int1'),
    int2: reader.int('int2'),
  };
}

/** A client that sends whatever it is told to: the wire itself, without libvirt's library. */
export class RawClient<Stream extends Duplex = Socket> extends FrameSocket<Stream> {
  private serial = 0;

  /** Rejects with the system's error. */
  static async connect(path: string): Promise<RawClient> {
    return new RawClient(await FrameSocket.connectSocket(path));
  }

  /** Connects and opens a URI. Rejects when that fails. */
  static async open(path: string, uri: string | null, flags = 0): Promise<RawClient> {
    const client = await RawClient.connect(path);
    const reply = await client.openUri(uri, flags);
    if (reply.status === status.ok) return client;
    client.destroy();
    throw new Error(readError(reply).message ?? 'an error without a message');
  }

  /** Sends a call and gives its serial number; `header` overrides what a plain call has. */
  begin(number: number, payload?: Buffer, header: Partial<FrameHeader> = {}): number {
    const serial = header.serial ?? ++this.serial;
    this.send(frameOf({ ...header, procedure: number, serial }, payload));
    return serial;
  }

  /** Sends a call and resolves with its reply, be it an error. */
  call(
    number: number,
    payload?: Buffer,
    header: Partial<FrameHeader> = {},
  ): Promise<ReceivedFrame> {
    return this.replyTo(this.begin(number, payload, header));
  }

  /** The reply to the call with this serial number. */
  replyTo(serial: number, patience?: number): Promise<ReceivedFrame> {
    return this.take(
      (frame) => frame.type === messageType.reply && frame.serial === serial,
      `the reply to call ${serial}`,
      patience,
    );
  }

  openUri(uri: string | null, flags = 0): Promise<ReceivedFrame> {
    return this.call(procedure.connectOpen, encodeOpenArguments({ name: uri, flags }));
  }

  /** Sends a PING and resolves with the PONG. */
  ping(patience?: number): Promise<ReceivedFrame> {
    const header = { program: program.keepalive, type: messageType.message };
    this.send(frameOf({ ...header, procedure: keepalive.ping }));
    return this.take(
      (frame) => frame.program === program.keepalive && frame.procedure === keepalive.pong,
      'the PONG',
      patience,
    );
  }
}
