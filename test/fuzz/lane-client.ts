import { setTimeout as pause } from 'node:timers/promises';
import { messageType, program, programVersion, status } from '../../lib/rpc/frame.js';
import { procedureAt, procedures } from '../../lib/rpc/procedures.js';
import { encodeIdentityArguments, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { RawClient } from '../peers/raw-client.js';
import type { Random } from './random.js';

export interface LaneOptions {
  /** The proxy's socket. */
  readonly socket: string;
  /** The driver whose daemon is the lane's own. */
  readonly driver: string;
  /**
   * The name by which secondary daemons know clients of this lane; null where identities cannot be
   * set.
   */
  readonly userName: string | null;
  readonly condemn: (why: string) => void;
}

/** Milliseconds that a client of a fuzzed daemon waits for what may never come. */
const patience = 60;

const served = procedures.filter(({ isEvent, route }) => !isEvent && route !== 'session');
const streaming = served.filter(({ opensStream }) => opensStream);

/**
 * A client that does nothing wrong, and sees that its daemons' mistakes do not go beyond what
 * daemons may say to it.
 */
export class LaneClient {
  private readonly outstanding = new Map<string, number>();
  private readonly streams = new Set<string>();

  constructor(
    private readonly random: Random,
    private readonly client: RawClient,
    private readonly options: LaneOptions,
  ) {}

  /** Plays one session. Resolves with the number of calls. */
  static async play(random: Random, options: LaneOptions): Promise<number> {
    const client = await RawClient.connect(options.socket);
    const lane = new LaneClient(random, client, options);
    client.consume = (frame) => lane.received(frame);
    try {
      return await lane.play();
    } finally {
      client.destroy();
    }
  }

  private async play(): Promise<number> {
    const { client, random, options } = this;
    this.note(procedure.connectOpen, 1);
    if (!(await this.succeeds(client.openUri(`${options.driver}:///system`)))) return 1;
    if (options.userName !== null) {
      const identity = encodeIdentityArguments([
        { field: 'user-name', type: 'string', value: options.userName },
      ]);
      this.note(procedure.connectSetIdentity, 2);
      if (!(await this.succeeds(client.call(procedure.connectSetIdentity, identity)))) return 2;
    }
    const count = 1 + random.below(12);
    for (let serial = 10; serial < 10 + count && !client.ended; serial++) {
      const choice = random.pick(random.chance(0.3) ? streaming : served);
      // Without a name its secondary daemons are those of everybody.
      const isOurs = choice.route === 'hypervisor' || options.userName !== null;
      if (isOurs && choice.descriptors === null) this.call(choice.program, choice.number, serial);
      if (random.chance(0.3)) await pause(1);
    }
    await this.answered();
    return 2 + count;
  }

  private call(programNumber: number, number: number, serial: number): void {
    this.note(number, serial, programNumber);
    const header = { program: programNumber, procedure: number, serial };
    const key = keyOf(header);
    this.client.send(frameOf(header, this.random.bytes(4 * this.random.below(20))));
    if (procedureAt(programNumber, number)?.opensStream !== true) return;
    this.streams.add(key);
    if (this.random.chance(0.5)) return;
    const part = { ...header, type: messageType.stream };
    this.client.send(
      frameOf({ ...part, status: status.continue }, Buffer.alloc(this.random.below(3000))),
    );
    if (this.random.chance(0.5)) this.client.send(frameOf(part));
  }

  private note(number: number, serial: number, programNumber: number = program.remote): void {
    const key = keyOf({ program: programNumber, procedure: number, serial });
    this.outstanding.set(key, (this.outstanding.get(key) ?? 0) + 1);
  }

  private received(frame: ReceivedFrame): boolean {
    const { condemn } = this.options;
    const key = keyOf(frame);
    if (frame.version !== programVersion) condemn(`a client was sent version ${frame.version}`);
    switch (frame.type) {
      case messageType.reply: {
        const left = this.outstanding.get(key) ?? 0;
        if (left === 0) condemn(`a client was sent a reply to no call: ${key}`);
        this.outstanding.set(key, left - 1);
        if (frame.status !== status.ok) this.streams.delete(key);
        // What `play` itself waits for.
        return frame.serial >= 10;
      }
      case messageType.stream:
      case messageType.streamHole:
        // What a procedure that the table does not know opens, the proxy cannot know.
        if (!this.streams.has(key) && procedureAt(frame.program, frame.procedure) !== undefined) {
          condemn(`a client was sent a frame of no stream: ${key}`);
        }
        if (frame.type === messageType.stream && frame.status !== status.continue) {
          this.streams.delete(key);
        }
        return true;
      case messageType.message:
        if (procedureAt(frame.program, frame.procedure)?.isEvent === false) {
          condemn(`a client was sent an event that is none: ${key}`);
        }
        return true;
      default:
        condemn(`a client was sent a frame of type ${frame.type}: ${key}`);
        return true;
    }
  }

  private async succeeds(reply: Promise<ReceivedFrame>): Promise<boolean> {
    const said = await Promise.race([reply.catch(() => null), pause(patience, null)]);
    return said?.status === status.ok;
  }

  private async answered(): Promise<void> {
    const end = performance.now() + patience;
    const isDone = (): boolean => [...this.outstanding.values()].every((count) => count === 0);
    while (!isDone() && !this.client.ended && performance.now() < end) await pause(2);
  }
}

const keyOf = ({
  program: programNumber,
  procedure: number,
  serial,
}: Pick<ReceivedFrame, 'program' | 'procedure' | 'serial'>): string =>
  `${programNumber} ${number} ${serial}`;
