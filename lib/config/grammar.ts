import { type ConfigProblem, problemAt } from './errors.js';

/** A value as written: a number, a string, or a list. */
export type ConfValue = number | string | readonly ConfValue[];

/** One `key = value` statement; `line` is the line its key stands on, counted from 1. */
export interface ConfEntry {
  readonly key: string;
  readonly value: ConfValue;
  readonly line: number;
}

/** What a virtproxyd.conf says: its statements in the order of the file, and its syntax errors. */
export interface ConfText {
  readonly entries: readonly ConfEntry[];
  readonly problems: readonly ConfigProblem[];
}

const ASSIGNMENT = /^[ \t]*[A-Za-z][A-Za-z0-9_]*[ \t]*=/;

class SyntaxFault extends Error {
  readonly line: number;

  constructor(line: number, sentence: string) {
    super(sentence);
    this.line = line;
  }
}

/**
 * Reads the grammar of libvirt's daemon configuration files (its `virconf` reader, compared with
 * libvirtd 9.0.0 in the tests): statements end at the end of the line or at `;`, strings know no
 * escapes, an integer is decimal, a list may span lines and end with a comma but holds no comments.
 * Unlike libvirt's reader, a file of blank lines is fine and reading goes on at the next assignment
 * after an error, so that every error is reported at once.
 */
export function parseConf(text: string, file: string): ConfText {
  return new ConfReader(text, file).read();
}

class ConfReader {
  readonly #text: string;
  readonly #file: string;
  readonly #entries: ConfEntry[] = [];
  readonly #problems: ConfigProblem[] = [];
  #at = 0;
  #line = 1;
  #key: string | null = null;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  read(): ConfText {
    this.#skipBlankLines();
    while (this.#at < this.#text.length) {
      const [start, startLine] = [this.#at, this.#line];
      try {
        this.#readStatement();
        this.#readSeparator();
      } catch (error) {
        if (!(error instanceof SyntaxFault)) throw error;
        const place = { file: this.#file, line: error.line, key: this.#key };
        this.#problems.push(problemAt('syntax', place, error.message));
        this.#resumeAfter(start, startLine);
      }
      this.#skipBlankLines();
    }
    return { entries: this.#entries, problems: this.#problems };
  }

  #readStatement(): void {
    this.#key = null;
    if (this.#peek() === '#') {
      this.#take(/[^\r\n]*/y);
      return;
    }
    const line = this.#line;
    const key = this.#take(/[A-Za-z][A-Za-z0-9_]*/y);
    if (key === '') this.#fail('expecting a name: a statement begins with a key');
    this.#key = key;
    this.#skipBlanks();
    if (this.#peek() !== '=') {
      this.#fail(`expecting an assignment: "${key}" must be followed by = and a value`);
    }
    this.#at += 1;
    this.#skipBlanks();
    this.#entries.push({ key, value: this.#readValue(), line });
    this.#skipBlanks();
    this.#take(/#[^\r\n]*/y);
  }

  #readSeparator(): void {
    this.#skipBlanks();
    if (this.#at === this.#text.length || /[\r\n]/.test(this.#peek())) return;
    if (this.#peek() === ';') this.#at += 1;
    else this.#fail('expecting a separator: only one statement may stand on a line');
  }

  #readValue(): ConfValue {
    const next = this.#peek();
    if (next === '"' || next === "'") return this.#readString(next);
    if (next === '[') return this.#readList();
    if (/[-+0-9]/.test(next)) return this.#readInteger();
    return this.#fail('expecting a value: an integer, a quoted string or a [ list ]');
  }

  #readInteger(): number {
    const sign = this.#take(/[-+]/y);
    const digits = this.#take(/[0-9]+/y);
    if (digits === '') this.#fail(`unterminated number: digits must follow "${sign}"`);
    return sign === '-' ? 0 - Number(digits) : Number(digits);
  }

  #readString(quote: string): string {
    const triple = this.#text.startsWith('"""', this.#at);
    const mark = triple ? '"""' : quote;
    const start = this.#at + mark.length;
    const end = this.#text.indexOf(mark, start);
    const value = this.#text.slice(start, end === -1 ? undefined : end);
    if (end === -1 || (!triple && /[\r\n]/.test(value))) {
      this.#fail(`unterminated string: the closing ${mark} is missing`);
    }
    this.#at = end + mark.length;
    this.#line += value.split('\n').length - 1;
    return value;
  }

  #readList(): ConfValue {
    const values: ConfValue[] = [];
    this.#at += 1;
    this.#skipBlankLines();
    while (this.#peek() !== ']') {
      if (this.#at === this.#text.length) this.#fail('list is not closed with ]');
      if (values.length > 0) {
        if (this.#peek() !== ',') this.#fail('expecting a separator in list: a comma or ]');
        this.#at += 1;
        this.#skipBlankLines();
        if (this.#peek() === ']') break;
      }
      values.push(this.#readValue());
      this.#skipBlankLines();
    }
    this.#at += 1;
    return values;
  }

  /**
   * Moves past a broken statement, to the next line from the fault on that looks like an
   * assignment.
   */
  #resumeAfter(start: number, startLine: number): void {
    const fault = this.#at;
    this.#at = start;
    this.#line = startLine;
    do {
      this.#take(/[^\n]*/y);
      if (this.#at === this.#text.length) return;
      this.#at += 1;
      this.#line += 1;
    } while (!this.#startsStatement(fault));
  }

  #startsStatement(fault: number): boolean {
    const end = this.#text.indexOf('\n', this.#at);
    const line = this.#text.slice(this.#at, end === -1 ? undefined : end);
    return this.#at + line.length >= fault && ASSIGNMENT.test(line);
  }

  #skipBlanks(): void {
    this.#take(/[ \t]*/y);
  }

  #skipBlankLines(): void {
    this.#line += this.#take(/[ \t\r\n]*/y).split('\n').length - 1;
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const taken = pattern.exec(this.#text)?.[0] ?? '';
    this.#at += taken.length;
    return taken;
  }

  #fail(sentence: string): never {
    throw new SyntaxFault(this.#line, sentence);
  }
}
