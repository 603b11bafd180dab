import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const program = 'chromium';

/** Why there is no browser here, as a phrase for a test's title. */
export function browserLacking(): string | undefined {
  return spawnSync(program, ['--version']).status === 0 ? undefined : 'needs chromium';
}

/** No graphics, and nobody to talk to but who is looked at. */
const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-quic',
  '--no-first-run',
  '--disable-component-update',
  '--disable-sync',
  '--hide-scrollbars',
  '--remote-debugging-pipe',
];

/** Milliseconds that the browser may take for one command. */
const patience = 30_000;

/** What the browser says. Source: Chrome DevTools Protocol. */
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

/** How a page is looked at. */
export interface View {
  readonly width: number;
  readonly height: number;
  readonly scheme: 'light' | 'dark';
}

/**
 * A headless Chromium with one page, spoken to over a pipe: messages of JSON, each with a NUL at
 * its end.
 */
export class Browser {
  /** Addresses that the page has asked for. */
  readonly requests: string[] = [];
  /**
   * What went wrong on the page: exceptions, errors on the console, breaches of the content policy.
   */
  readonly complaints: string[] = [];
  private lastId = 0;
  private readonly waiting = new Map<number, (message: Message) => void>();
  private received = '';
  private session: string | undefined;

  private constructor(
    private readonly child: ChildProcess,
    private readonly profile: string,
  ) {
    const output = child.stdio[4] as Readable;
    output.setEncoding('utf8');
    output.on('data', (chunk: string) => {
      const messages = (this.received + chunk).split('\0');
      this.received = messages.pop() ?? '';
      for (const message of messages) this.onMessage(JSON.parse(message) as Message);
    });
  }

  static async start(): Promise<Browser> {
    const profile = await mkdtemp(join(tmpdir(), 'vp-browser-'));
    const child = spawn(program, [...flags, `--user-data-dir=${profile}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    const browser = new Browser(child, profile);
    const { targetId } = await browser.ask('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.ask('Target.attachToTarget', { targetId, flatten: true });
    browser.session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Network', 'Log'])
      await browser.ask(`${domain}.enable`);
    return browser;
  }

  async show(url: string, { width, height, scheme }: View): Promise<void> {
    await this.ask('Emulation.setDeviceMetricsOverride', {
      ...{ width, height, deviceScaleFactor: 1 },
      mobile: width < 600,
    });
    await this.ask('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value: scheme }],
    });
    await this.ask('Page.navigate', { url });
  }

  /** The value of an expression on the page. */
  async evaluate(expression: string): Promise<unknown> {
    const { result } = await this.ask('Runtime.evaluate', { expression, returnByValue: true });
    return (result as { readonly value?: unknown }).value;
  }

  /** What is to be read on the page. */
  async text(): Promise<string> {
    return String(await this.evaluate('document.body?.innerText'));
  }

  /** A picture of the whole page, as PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.ask('Page.captureScreenshot', { captureBeyondViewport: true });
    return Buffer.from(data as string, 'base64');
  }

  async stop(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
    await rm(this.profile, { recursive: true, force: true, maxRetries: 10 });
  }

  private async ask(
    method: string,
    params: Record<string, unknown> = {},
  ): Promise<Record<string, unknown>> {
    const id = ++this.lastId;
    const input = this.child.stdio[3] as Writable;
    const answered = new Promise<Message>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`The browser did not answer ${method}.`));
      }, patience);
      this.waiting.set(id, (message) => {
        clearTimeout(timer);
        resolve(message);
      });
    });
    const session = this.session === undefined ? {} : { sessionId: this.session };
    input.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    const { result, error } = await answered;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  private onMessage({ id, method, params = {}, ...message }: Message): void {
    if (id !== undefined) {
      this.waiting.get(id)?.({ id, ...message });
      this.waiting.delete(id);
    } else if (method === 'Network.requestWillBeSent') {
      this.requests.push((params['request'] as { readonly url: string }).url);
    } else if (method === 'Runtime.exceptionThrown') {
      this.complaints.push(JSON.stringify(params['exceptionDetails']));
    } else if (method === 'Log.entryAdded') {
      const entry = params['entry'] as { readonly level: string; readonly text: string };
      if (entry.level === 'error') this.complaints.push(entry.text);
    }
  }
}
