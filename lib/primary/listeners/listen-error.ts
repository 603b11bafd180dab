import { errorText } from '../../error-text.js';

/** A socket cannot be listened on; the sentence names it. */
export class ListenError extends Error {
  readonly code = 'LISTEN';
}

/** The error for a socket that the system would not let us listen on, with what can be done. */
export function cannotListen(name: string, error: unknown): ListenError {
  if (error instanceof ListenError) return error;
  const reason = errorText(error);
  const { code } = error as NodeJS.ErrnoException;
  const advice = code !== undefined && Object.hasOwn(advices, code) ? advices[code] : undefined;
  return new ListenError(`Cannot listen on '${name}': ${reason}${advice ?? ''}`, { cause: error });
}

/** What can be done, by the system's error. */
const advices: Readonly<Record<string, string>> = {
  EADDRINUSE: '; stop the program that listens there, or set another port',
  EADDRNOTAVAIL: '; it must be an address of this host',
  EACCES: '; see who may write to the directory, and that ports below 1024 are for root',
  ENOENT: '; make the directory',
};
