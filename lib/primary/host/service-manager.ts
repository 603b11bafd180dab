/**
 * The room of the host around the daemon, a file for each of its sides: service manager, PID file,
 * run directory, hooks, what a configuration needs of the host, the new version that takes over.
 * What enters knows neither clients nor workers, and the primary puts it to use.
 */
import { DatagramSocket } from '../../native/datagram.js';

/**
 * Messages that may wait while the service manager is too busy to take them; older ones are
 * dropped.
 */
const maxQueued = 32;

/** Milliseconds until a message that could not be sent is tried again. */
const retryInterval = 100;

const controlCharacters = /[\u0000-\u001f\u007f]+/g;

/**
 * The way to systemd, or whoever else speaks sd_notify(3) and its watchdog
 * (sd_watchdog_enabled(3)). Without NOTIFY_SOCKET every method does nothing. Nothing here throws or
 * waits: what goes wrong is told to `debug`.
 */
export class ServiceManager {
  private readonly target: string | undefined;
  private readonly watchdogMicroseconds: number;
  private socket: DatagramSocket | null = null;
  private watchdog: NodeJS.Timeout | null = null;
  private readonly waiting: string[] = [];
  private retry: NodeJS.Timeout | null = null;

  /** Removes the variables from `env`, so that no other process can speak for this one. */
  constructor(
    env: Record<string, string | undefined>,
    private readonly debug: (message: string) => void,
  ) {
    const { NOTIFY_SOCKET: target, WATCHDOG_USEC: period, WATCHDOG_PID: pid } = env;
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) {
      Reflect.deleteProperty(env, name);
    }
    this.target = target;
    this.watchdogMicroseconds =
      pid === undefined || pid === String(process.pid) ? microseconds(period) : 0;
    if (target === undefined) return;
    try {
      if (!/^[/@]./.test(target)) throw new Error(`'${target}' is neither a path nor an @name`);
      this.socket = new DatagramSocket(target);
    } catch (error) {
      debug(`cannot notify the service manager: ${(error as Error).message}`);
    }
  }

  /** What a successor of this process needs in its environment to speak in its stead. */
  get environment(): Record<string, string> {
    if (this.target === undefined) return {};
    const period = this.watchdogMicroseconds;
    return {
      NOTIFY_SOCKET: this.target,
      ...(period > 0 && { WATCHDOG_USEC: String(period) }),
    };
  }

  /** The daemon serves. */
  ready(): void {
    this.notify('READY=1');
  }

  /** A reload has begun; `reloaded` has to follow, whatever comes of it. */
  reloading(): void {
    // CLOCK_MONOTONIC, by which systemd tells this reload from the ones before.
    this.notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** The reload has ended. `status` says how, to whoever asks `systemctl status`. */
  reloaded(status: string): void {
    this.notify(`READY=1\nSTATUS=${oneLine(status)}`);
  }

  /** The daemon ends, or has begun to. */
  stopping(): void {
    this.notify('STOPPING=1');
  }

  status(text: string): void {
    this.notify(`STATUS=${oneLine(text)}`);
  }

  /**
   * Another process is the service's main one from now on, and alone may speak to the service
   * manager.
   */
  mainPid(pid: number): void {
    this.notify(`MAINPID=${pid}`);
  }

  /**
   * Says as often as the service manager wants to hear it that the daemon lives, as long as it
   * does; nothing where it watches nobody. A daemon that falls silent is killed.
   */
  startWatchdog(isAlive: () => boolean): void {
    if (this.socket === null || this.watchdogMicroseconds === 0 || this.watchdog !== null) return;
    const ping = (): void => {
      if (isAlive()) this.notify('WATCHDOG=1');
    };
    ping();
    this.watchdog = setInterval(ping, this.watchdogMicroseconds / 2000).unref();
  }

  /** Says no more. Idempotent. */
  stop(): void {
    if (this.watchdog !== null) clearInterval(this.watchdog);
    if (this.retry !== null) clearTimeout(this.retry);
    this.watchdog = this.retry = null;
    this.socket?.close();
    this.socket = null;
  }

  private notify(message: string): void {
    if (this.socket === null) return;
    this.waiting.push(message);
    if (this.waiting.length > maxQueued) this.waiting.shift();
    if (this.retry === null) this.send();
  }

  /** Sends what waits, in order. */
  private send(): void {
    this.retry = null;
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      const result = this.socket?.send(Buffer.from(next));
      if (result === 'would-block') {
        this.retry = setTimeout(() => this.send(), retryInterval).unref();
        return;
      }
      this.waiting.shift();
      if (result instanceof Error) {
        this.debug(`cannot notify the service manager: ${result.message}`);
      }
    }
  }
}

function microseconds(text: string | undefined): number {
  return text !== undefined && /^[1-9]\d*$/.test(text) ? Number(text) : 0;
}

/** A line break would begin another message. */
const oneLine = (text: string): string => text.replace(controlCharacters, ' ').trim();
