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
    const what = `a line in the log that matches ${String(form)}`;
    await until(() => this.lines.some((line) => form.test(line)), { what }).catch(() => {
      expect.fail(`There is no ${what}, but:\n${this.lines.join('\n')}`);
    });
  }

  /** Waits for a line, which must be the only one, and of this form. */
  async onlyLine(form: RegExp): Promise<void> {
    await until(() => this.lines.length > 0, { what: 'a line in the log' });
    expect(this.lines).to.have.length(1);
    expect(this.lines[0]).to.match(form);
  }
}
