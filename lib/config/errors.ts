/**
 * What kind of mistake a problem is: `unreadable` the file cannot be read, `syntax` the text does
 * not follow the grammar, `wrong-type` the value has another type than the key, `bad-value` the
 * type is right and the value is not, `conflict` two keys contradict.
 */
export type ConfigErrorCode = 'unreadable' | 'syntax' | 'wrong-type' | 'bad-value' | 'conflict';

/**
 * Where in a configuration file something stands. `line` counts from 1; null means the whole file.
 */
export interface Place {
  readonly file: string;
  readonly line: number | null;
  readonly key: string | null;
}

/** The keys that turn the network listeners on. */
export type ListenerKey = 'listen_tcp' | 'listen_tls';

/** One mistake in a configuration file. `message` is a full sentence that begins with the place. */
export interface ConfigProblem extends Place {
  readonly code: ConfigErrorCode;
  readonly message: string;
  /** Where it is a mistake only while one of these listeners is on. */
  readonly needs?: readonly ListenerKey[];
}

/** Puts `FILE:LINE: ` (or `FILE: `) before a sentence. */
export function withPlace({ file, line }: Place, sentence: string): string {
  return line === null ? `${file}: ${sentence}` : `${file}:${line}: ${sentence}`;
}

/** Builds a problem whose message names its place. */
export function problemAt(code: ConfigErrorCode, place: Place, sentence: string): ConfigProblem {
  const { file, line, key } = place;
  return { code, file, line, key, message: withPlace(place, sentence) };
}

/** Whether a problem keeps the daemon from starting with these listeners. */
export function isInForce(
  { needs }: ConfigProblem,
  listeners: Readonly<Record<ListenerKey, boolean>>,
): boolean {
  return needs === undefined || needs.some((key) => listeners[key]);
}

/** What an administrator should know about a problem that is not in force. */
export function dormantWarning({ message, needs = [] }: ConfigProblem): string {
  const [are, them] = needs.length === 1 ? ['is', 'it'] : ['are', 'either'];
  return `${message} It has no effect while ${needs.join(' and ')} ${are} 0; with ${them} the daemon would not start.`;
}

/**
 * A configuration that cannot be used. `problems` holds every mistake found, `message` one line for
 * each; `code`, `file`, `line` and `key` are those of the first.
 */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code: ConfigErrorCode;
  readonly file: string;
  readonly line: number | null;
  readonly key: string | null;
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly [ConfigProblem, ...ConfigProblem[]]) {
    super(problems.map(({ message }) => message).join('\n'));
    const [first] = problems;
    this.code = first.code;
    this.file = first.file;
    this.line = first.line;
    this.key = first.key;
    this.problems = problems;
  }
}
