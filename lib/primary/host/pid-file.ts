import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { lockForLife } from '../../native/file-lock.js';

/** The PID file is held by another instance, or cannot be written. */
export class PidFileError extends Error {
  readonly code = 'PID_FILE';
}

/**
 * The PID file, write-locked as long as the process lives: what keeps a second instance away. The
 * process must not open the file by any other way, since closing it there would end the lock.
 */
export class PidFile {
  private constructor(
    private readonly path: string,
    private readonly fd: number,
  ) {}

  /**
   * Throws PidFileError, with `hint` where the file cannot be made; what another instance holds is
   * left as it is.
   */
  static acquire(path: string, hint = ''): PidFile {
    for (;;) {
      let fd: number;
      try {
        fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
      } catch (error) {
        const reason = (error as Error).message;
        const sentence = `Failed to open pid file '${path}': ${reason}${hint && `.${hint}`}`;
        throw new PidFileError(sentence, { cause: error });
      }
      if (!lockForLife(fd)) {
        closeSync(fd);
        throw new PidFileError(
          `Failed to acquire pid file '${path}': another process holds it; is virtproxyd running already?`,
        );
      }
      // Whoever held it before may have removed it between our open and our lock.
      if (isSameFile(fd, path)) return PidFile.written(path, fd);
      closeSync(fd);
    }
  }

  private static written(path: string, fd: number): PidFile {
    const text = `${process.pid}\n`;
    // In this order a reader never finds an older pid's file empty.
    writeSync(fd, text, 0);
    ftruncateSync(fd, text.length);
    return new PidFile(path, fd);
  }

  /** Gives up the lock and leaves the file to the process that takes over. */
  handOver(): void {
    closeSync(this.fd);
  }

  /** Removes the file, then gives up the lock. */
  release(): void {
    if (isSameFile(this.fd, this.path)) unlinkSync(this.path);
    closeSync(this.fd);
  }
}

function isSameFile(fd: number, path: string): boolean {
  const ours = fstatSync(fd);
  const there = statSync(path, { throwIfNoEntry: false });
  return there !== undefined && there.ino === ours.ino && there.dev === ours.dev;
}
