import { expect } from 'chai';
import { Service } from '../lifecycle/service.js';
import { Browser, browserLacking, type View } from '../peers/browser.js';
import { freePorts } from '../peers/ports.js';
import type { RawClient } from '../peers/raw-client.js';
import { ask } from '../peers/scrape.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';

const lacking = browserLacking();

const views: Record<string, View> = {
  'a desktop': { width: 1280, height: 800, scheme: 'light' },
  'a desktop at night': { width: 1280, height: 800, scheme: 'dark' },
  'a phone': { width: 360, height: 740, scheme: 'light' },
  'a phone at night': { width: 360, height: 740, scheme: 'dark' },
};

describe(`the status page${lacking === undefined ? '' : ` in a browser (skipped: ${lacking})`}`, function () {
  this.timeout(90_000);
  let browser: Browser;
  let service: Service;
  let client: RawClient;
  let port: number;
  let url: string;

  before(async function () {
    if (lacking !== undefined) this.skip();
    [port = 0] = await freePorts(1);
    url = `http://127.0.0.1:${port}/`;
    browser = await Browser.start();
    service = await Service.start({ cluster: `[metrics]\nlisten = 127.0.0.1:${port}\n` });
    client = await service.proxy.open();
    await client.call(stressCall.hostname);
  });

  after(async () => {
    if (lacking !== undefined) return;
    client.destroy();
    await browser.stop();
    await service.end({ alone: false });
  });

  const shows = (pattern: RegExp): Promise<boolean> =>
    until(async () => pattern.test(await browser.text()), {
      what: `the page to show ${String(pattern)}`,
    });

  for (const [what, view] of Object.entries(views)) {
    it(`fits ${what}, asks nobody else, and keeps to its own policy`, async () => {
      await browser.show(url, view);
      await shows(/All is well\s+2 of 2 workers ready · 1 client · 2 daemons/);
      await shows(/virtqemud/);
      expect(await browser.evaluate('document.documentElement.scrollWidth')).to.equal(view.width);
      const colour = await browser.evaluate('getComputedStyle(document.body).backgroundColor');
      expect(colour).to.equal(view.scheme === 'dark' ? 'rgb(18, 21, 27)' : 'rgb(245, 246, 248)');
      expect(await browser.evaluate('document.body.dataset.health')).to.equal('ok');
      expect(await browser.evaluate('document.title')).to.match(/^All is well · virtproxyd/);
      expect(new Set(browser.requests)).to.deep.equal(new Set([url, `${url}status.json`]));
      expect(browser.complaints).to.deep.equal([]);
      const picture = await browser.picture();
      expect(picture.subarray(1, 4).toString()).to.equal('PNG');
    });
  }

  it('refreshes itself: shows calls, a failed reload, and that nobody answers', async () => {
    await browser.show(url, { width: 1280, height: 800, scheme: 'light' });
    await shows(/All is well/);
    const caller = { on: true };
    const calls = (async () => {
      while (caller.on) await client.call(stressCall.hostname);
    })();
    await until(async () => Number(await browser.evaluate('parseFloat(rate.textContent)')) > 0, {
      what: 'calls a second',
    });
    await service.configure({ max_clients: 'many' });
    service.signal('SIGHUP');
    await shows(/1 problem[^]*The last reload failed[^]*failed \d+ s ago/);
    expect(await browser.evaluate('document.body.dataset.health')).to.equal('degraded');
    caller.on = false;
    await calls;
    await service.configure({});
    await service.configureCluster('');
    await service.reload();
    await shows(/No answer\s+[^]*what is shown is from before/);
    expect(await browser.evaluate('document.body.dataset.health')).to.equal('unknown');
    await service.configureCluster(`[metrics]\nlisten = 127.0.0.1:${port}\n`);
    await service.reload();
    await shows(/All is well/);
  });

  it('lets no text of its data become markup', async () => {
    const { body, headers } = await ask({ port }, '/');
    expect(body).to.not.match(/innerHTML|insertAdjacentHTML|document\.write|eval\(/);
    expect(headers['content-security-policy']).to.match(
      /^default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'; connect-src 'self';/,
    );
    expect(body).to.not.match(/(src|href)="(https?:)?\/\//);
  });
});
