/**
 * How a server watches over silent clients. Source: libvirt's keepalive settings in
 * virtproxyd.conf.
 */
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
  private heardSince = false;
  private pings = 0;

  /** `now` in milliseconds of any steady clock, here and below. */
  constructor(
    private readonly settings: KeepaliveSettings,
    now: number,
  ) {
    this.heardAt = now;
  }

  /** To be called for every piece that arrives, so it does not even look at the clock. */
  heard(): void {
    this.heardSince = true;
  }

  /** To be asked about once a second. */
  step(now: number): KeepaliveStep {
    const { interval, count } = this.settings;
    if (this.heardSince) {
      this.heardSince = false;
      this.heardAt = now;
      this.pings = 0;
    }
    if (interval <= 0 || now - this.heardAt < interval * 1000 * (this.pings + 1)) return 'nothing';
    if (this.pings >= count) return 'give up';
    this.pings++;
    return 'ping';
  }
}
