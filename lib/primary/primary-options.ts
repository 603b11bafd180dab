import type { Configuration } from '../config/configuration.js';
import type { InheritedSocket } from './listeners/socket-activation.js';

/** What the command line says beside the configuration. */
export interface PrimaryOptions {
  /** Reads the configuration files anew. Throws ConfigError. */
  readonly readConfiguration: () => Configuration;
  /** Null: the mode's own. */
  readonly pidFile: string | null;
  /** The directory that the command line's relative paths mean. */
  readonly directory: string;
  /** Runs in the background: nobody reads its standard error. */
  readonly daemon: boolean;
  /** Seconds without clients after which the daemon ends, `maxIdleSeconds` at most; 0: never. */
  readonly timeoutSeconds: number;
  /** The program's: `MAJOR.MINOR.PATCH`. */
  readonly release: string;
  readonly verbose: boolean;
  /** Sockets that the service manager opened; if there are any, no others are opened. */
  readonly activated: readonly InheritedSocket[];
}
