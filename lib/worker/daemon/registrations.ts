import { headerLength, procedureOf, programOf, serialOf } from '../../rpc/frame.js';
import { procedureAt, type Procedure } from '../../rpc/procedures.js';
import { DaemonRefusal, type DaemonConversation } from './conversation.js';

/**
 * Registrations of one client with one daemon that are remembered at most, those under way
 * included.
 */
export const maxRegistrations = 1024;

/** In place of a callback's id that the daemon cannot know: it has none that is negative. */
const noId = -1;

/** A call that asks for events, as it was answered. */
export interface Registration {
  readonly row: Procedure;
  /** The arguments of the call, which a daemon that has come back is sent again. */
  readonly payload: Buffer;
  /** The number by which the client knows it; null where the procedure has none. */
  readonly clientId: number | null;
  /**
   * The number by which the daemon knows it; null too when it has not taken it again, its guest or
   * network being gone.
   */
  daemonId: number | null;
}

/** A registration or deregistration whose reply has not come. */
interface UnderWay {
  readonly row: Procedure;
  readonly serial: number;
  readonly payload: Buffer;
}

/**
 * Ids are a daemon's own for each kind of event: the same number may stand for a guest's and a
 * network's.
 */
const isOfFamily = (row: Procedure, other: Procedure): boolean =>
  row.program === other.program && row.route === other.route;

/**
 * What events a client has asked one daemon for. A daemon that was restarted is asked for them
 * again and gives them other ids, so the client's are put in the place of the daemon's in events
 * and replies, and the other way round in deregistrations. Until the first restart they are the
 * same.
 */
export class Registrations {
  private list: Registration[] = [];
  private underWay: UnderWay[] = [];
  private translates = false;
  private lost = false;

  get isEmpty(): boolean {
    return this.list.length === 0;
  }

  /** There were more than can be remembered: the daemon cannot be asked for them all again. */
  get areIncomplete(): boolean {
    return this.lost;
  }

  /** In the order in which the client asked for them. */
  get all(): readonly Registration[] {
    return this.list;
  }

  /**
   * A call of `row`, which registers or deregisters, is about to be forwarded. A deregistration's
   * id becomes the daemon's.
   */
  onCall(row: Procedure, bytes: Buffer, start: number, end: number): void {
    const isFull = this.list.length + this.underWay.length >= maxRegistrations;
    if (isFull && row.registration === 'register') {
      this.lost = true;
      return;
    }
    const payload = Buffer.from(bytes.subarray(start + headerLength, end));
    this.underWay.push({ row, serial: serialOf(bytes, start), payload });
    if (!this.translates || row.registration !== 'deregister' || !hasId(row, payload.length))
      return;
    const known = this.list.find(
      (one) => isOfFamily(one.row, row) && one.clientId === payload.readInt32BE(0),
    );
    // One that is not remembered has the daemon's id.
    if (known === undefined && this.lost) return;
    bytes.writeInt32BE(known?.daemonId ?? noId, start + headerLength);
  }

  /**
   * A call of `row` was answered; `payload` is as long as the reply's. A registration's id becomes
   * the client's.
   */
  onReply(row: Procedure, bytes: Buffer, start: number, length: number, succeeded: boolean): void {
    const serial = serialOf(bytes, start);
    const index = this.underWay.findIndex((one) => one.serial === serial && one.row === row);
    const [call] = index < 0 ? [] : this.underWay.splice(index, 1);
    if (call === undefined || !succeeded) return;
    if (row.registration === 'deregister') {
      this.forget(call);
      return;
    }
    let clientId: number | null = null;
    let daemonId: number | null = null;
    if (hasId(row, length - headerLength)) {
      daemonId = bytes.readInt32BE(start + headerLength);
      clientId = this.translates ? this.freeId(row, daemonId) : daemonId;
      if (clientId !== daemonId) bytes.writeInt32BE(clientId, start + headerLength);
    }
    this.list.push({ row, payload: call.payload, clientId, daemonId });
  }

  /** An event is about to go to the client. */
  onEvent(bytes: Buffer, start: number, length: number): void {
    if (!this.translates) return;
    const row = procedureAt(programOf(bytes, start), procedureOf(bytes, start));
    if (row === undefined || !hasId(row, length - headerLength)) return;
    const id = bytes.readInt32BE(start + headerLength);
    const known = this.list.find((one) => isOfFamily(one.row, row) && one.daemonId === id);
    const clientId = known?.clientId ?? null;
    if (clientId !== null) bytes.writeInt32BE(clientId, start + headerLength);
  }

  /**
   * The connection is gone: calls under way will be made anew or fail, and the daemon's ids mean
   * nothing any more.
   */
  onLost(): void {
    this.underWay = [];
    this.translates = true;
    for (const registration of this.list) registration.daemonId = null;
  }

  /**
   * Asks a new daemon for the events that the old one was asked for. What it does not take, its
   * guest or network being gone, lapses. Rejects when the conversation ends.
   */
  async renew(conversation: Pick<DaemonConversation, 'ask' | 'throwIfFailed'>): Promise<void> {
    for (const registration of this.list) {
      const { row, payload } = registration;
      try {
        const reply = await conversation.ask(row.number, payload, row.program);
        if (hasId(row, reply.length)) registration.daemonId = reply.readInt32BE(0);
      } catch (error) {
        if (!(error instanceof DaemonRefusal)) throw error;
      }
    }
    conversation.throwIfFailed();
  }

  private forget({ row, payload }: UnderWay): void {
    const index = this.list.findIndex((one) => endsWith(row, payload, one));
    if (index >= 0) this.list.splice(index, 1);
  }

  /** The daemon's id where no other registration of the client's has it. */
  private freeId(row: Procedure, id: number): number {
    const taken = new Set(
      this.list.filter((one) => isOfFamily(one.row, row)).map(({ clientId }) => clientId),
    );
    let free = id;
    while (taken.has(free)) free++;
    return free;
  }
}

const hasId = (row: Procedure, payloadLength: number): boolean =>
  row.carriesCallback && payloadLength >= 4;

/**
 * Whether a deregistration with these arguments ends a registration. Those without ids end the one
 * of the procedure before theirs, with the same kind of event where it has one.
 */
function endsWith(row: Procedure, payload: Buffer, { row: begun, ...of }: Registration): boolean {
  if (row.carriesCallback) {
    return isOfFamily(row, begun) && payload.length >= 4 && of.clientId === payload.readInt32BE(0);
  }
  return (
    begun.program === row.program &&
    begun.number === row.number - 1 &&
    of.payload.subarray(0, 4).equals(payload.subarray(0, 4))
  );
}
