/**
 * What kind of mistake a problem is:
 * `unreadable` the file cannot be read, `syntax` the text does not follow the grammar, `wrong-type` the value has
 * another type than the key, `bad-value` the type is right and the value is not, `conflict` two keys contradict.
 */
export type ConfigErrorCode = 'unreadable' | 'syntax' | 'wrong-type' | 'bad-value' | 'conflict';

/** Where in a configuration file something stands. `line` counts from 1; null means the whole file. */
export interface Place {
  readonly file: string;
  readonly line: number | null;
  readonly key: string | null;
}

/** One mistake in a configuration file. `message` is a full sentence that begins with the place. */
export interface ConfigProblem extends Place {
  readonly code: ConfigErrorCode;
  readonly message: string;
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

/**
 * A configuration that cannot be used. `problems` holds every mistake found, `message` one line for each; `code`,
 * `file`, `line` and `key` are those of the first.
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
