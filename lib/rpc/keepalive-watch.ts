/** How a server watches over silent clients. Source: libvirt's keepalive settings in virtproxyd.conf. */
export interface KeepaliveSettings {
  /** Seconds of silence between PINGs; -1: never ask. */
  readonly interval: number;
  /** Unanswered PINGs after which the client is given up; 0: after one interval, without a PING. */
  readonly count: number;
}

/** What is to be done about a client's silence now. */
export type KeepaliveStep = 'nothing' | 'ping' | 'give up';

/** Watches one client. Any byte from it counts as life. */
export class KeepaliveWatch {
  private heardAt: number;
  private pings = 0;

  /** `now` in milliseconds of any steady clock, here and below. */
  constructor(
    private readonly settings: KeepaliveSettings,
    now: number,
  ) {
    this.heardAt = now;
  }

  heard(now: number): void {
    this.heardAt = now;
    this.pings = 0;
  }

  /** To be asked about once a second. */
  step(now: number): KeepaliveStep {
    const { interval, count } = this.settings;
    if (interval <= 0 || now - this.heardAt < interval * 1000 * (this.pings + 1)) return 'nothing';
    if (this.pings >= count) return 'give up';
    this.pings++;
    return 'ping';
  }
}
