import { expect } from 'chai';
import type { Proxy } from './proxy.js';
import { until } from './waiting.js';

/** What a proxy logs from now on. */
export class LogWatch {
  private readonly start: number;

  constructor(private readonly proxy: Proxy) {
    this.start = proxy.log().length;
  }

  /** Whole lines. */
  get lines(): string[] {
    return this.proxy.log().slice(this.start).split('\n').slice(0, -1);
  }

  /** Waits for a line of this form. */
  async line(form: RegExp): Promise<void> {
    const isThere = (): boolean => this.lines.some((line) => form.test(line));
    await until(isThere, { what: `a line that matches ${String(form)}` }).catch(
      (error: unknown) => {
        expect.fail(`${String(error)} The log has:\n${this.lines.join('\n')}`);
      },
    );
  }

  /** Waits for a line, which must be the only one, and of this form. */
  async onlyLine(form: RegExp): Promise<void> {
    await until(() => this.lines.length > 0, { what: 'a line in the log' });
    expect(this.lines, this.lines.join('\n')).to.have.length(1);
    expect(this.lines[0]).to.match(form);
  }
}
