import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  PolkitAuthority,
  polkitActions,
  type PolkitAuthorityOptions,
  type PolkitRequest,
  type PolkitVerdict,
} from '../../lib/auth/polkit.js';
import {
  Agent,
  PolkitHost,
  SilentAuthority,
  Subject,
  startStranger,
  until,
} from '../peers/polkit.js';

const { monitor, manage } = polkitActions;
const rules = `
  polkit.addRule(function (action, subject) {
    if (subject.user == 'daemon' && action.id == '${manage}') return polkit.Result.YES;
    if (subject.user == 'nobody') return polkit.Result.NO;
  });
`;

function codeOf(verdict: PolkitVerdict): string {
  return verdict.authorized ? 'authorized' : verdict.code;
}

function reasonOf(verdict: PolkitVerdict): string {
  return verdict.authorized ? '' : verdict.reason;
}

const lacking = PolkitHost.missing();

describe(`PolkitAuthority${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  const subjects: Subject[] = [];
  const authorities: PolkitAuthority[] = [];
  let daemon: Subject;
  let nobody: Subject;
  let games: Subject;

  function authority(options: PolkitAuthorityOptions): PolkitAuthority {
    const made = new PolkitAuthority(options);
    authorities.push(made);
    return made;
  }

  function request(subject: Subject, changes: Partial<PolkitRequest> = {}): PolkitRequest {
    const { pid, startTime, uid } = subject;
    return {
      action: manage,
      pid,
      startTime,
      uid,
      timeoutMs: 30_000,
      signal: new AbortController().signal,
      ...changes,
    };
  }

  async function start(user: string): Promise<Subject> {
    const subject = await Subject.start(user);
    subjects.push(subject);
    return subject;
  }

  before(async function () {
    if (lacking !== undefined) this.skip();
    daemon = await start('daemon');
    nobody = await start('nobody');
    games = await start('games');
  });

  afterEach(() => authorities.splice(0).forEach((made) => made.close()));
  after(() => Promise.all(subjects.map((subject) => subject.stop())));

  describe('with polkitd', () => {
    let host: PolkitHost;
    const check = (subject: Subject, changes: Partial<PolkitRequest> = {}) =>
      authority({ address: host.busAddress }).check(request(subject, changes));

    before(async () => {
      host = await PolkitHost.start({ rules });
    });
    after(() => host.stop());

    const cases = {
      'lets in whom a rule allows': [() => daemon, manage, 'authorized'],
      'refuses whom a rule denies': [() => nobody, manage, 'denied'],
      'refuses him to read, too': [() => nobody, monitor, 'denied'],
      'lets others read': [() => games, monitor, 'authorized'],
      'wants a password to write': [() => games, manage, 'challenge'],
    } as const;
    for (const [what, [user, action, code]] of Object.entries(cases)) {
      it(what, async () => {
        const verdict = await check(user(), { action });
        expect(codeOf(verdict), reasonOf(verdict)).to.equal(code);
      });
    }

    it('says in its reason who, what and what to do', async () => {
      const reason = reasonOf(await check(nobody));
      expect(reason).to.include(manage).and.include('user 65534');
      expect(reason).to.include(`process ${nobody.pid}`).and.include('/etc/polkit-1/rules.d');
    });

    it('takes the address from DBUS_SYSTEM_BUS_ADDRESS', async () => {
      const { DBUS_SYSTEM_BUS_ADDRESS: before } = process.env;
      process.env['DBUS_SYSTEM_BUS_ADDRESS'] = host.busAddress;
      const polkit = authority({});
      if (before === undefined) delete process.env['DBUS_SYSTEM_BUS_ADDRESS'];
      else process.env['DBUS_SYSTEM_BUS_ADDRESS'] = before;
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
    });

    const wrongIdentities: Record<string, () => Partial<PolkitRequest>> = {
      'a start time of another process': () => ({ startTime: daemon.startTime + 1n }),
      'no start time': () => ({ startTime: 0n }),
      'a start time that does not fit': () => ({ startTime: 2n ** 64n }),
      "another user's process": () => ({ pid: nobody.pid, startTime: nobody.startTime }),
      "root's uid": () => ({ uid: 0 }),
      'no uid': () => ({ uid: -1 }),
      'the uid that means none': () => ({ uid: 0xffff_ffff }),
      'no pid': () => ({ pid: 0 }),
    };
    for (const [what, changes] of Object.entries(wrongIdentities)) {
      it(`refuses an allowed user with ${what}`, async () => {
        expect(codeOf(await check(daemon, changes()))).to.equal('error');
      });
    }

    it('refuses a process that has ended', async () => {
      const gone = await start('daemon');
      await gone.stop();
      const verdict = await check(gone);
      expect(codeOf(verdict)).to.equal('error');
      expect(reasonOf(verdict)).to.include('is gone');
    });

    it('answers 300 checks at once, each with its own verdict', async () => {
      const polkit = authority({ address: host.busAddress });
      const users = Array.from({ length: 300 }, (_, index) => (index % 3 === 0 ? daemon : nobody));
      const verdicts = await Promise.all(users.map((user) => polkit.check(request(user))));
      expect(verdicts.map(codeOf)).to.deep.equal(
        users.map((user) => (user === daemon ? 'authorized' : 'denied')),
      );
    });

    it('has its defaults from the policy file in conf', () => {
      const { stdout } = spawnSync('pkaction', ['--verbose'], {
        encoding: 'utf8',
        env: { ...process.env, DBUS_SYSTEM_BUS_ADDRESS: host.busAddress },
      });
      const declared = [...stdout.matchAll(/^(org\..*):$|^ +implicit (.*): +(.*)$/gm)];
      expect(
        declared.map(([, action, session, result]) => action ?? `${session} ${result}`),
      ).to.eql([
        manage,
        ...['any', 'inactive', 'active'].map((session) => `${session} auth_admin_keep`),
        monitor,
        ...['any', 'inactive', 'active'].map((session) => `${session} yes`),
      ]);
    });

    describe('and an agent that asks for the password', () => {
      let agent: Agent | undefined;

      afterEach(() => agent?.stop());

      it('lets in when the user gives it', async () => {
        const user = await start('games');
        agent = await Agent.start(host.busAddress, user, 'accept');
        const verdict = await check(user);
        expect(codeOf(verdict), reasonOf(verdict)).to.equal('authorized');
        expect(agent.opened).to.equal(1);
      });

      it('refuses when the user dismisses the dialog', async () => {
        agent = await Agent.start(host.busAddress, games, 'dismiss');
        const verdict = await check(games);
        expect(codeOf(verdict)).to.equal('denied');
      });

      it('takes the dialog down when the client leaves', async () => {
        agent = await Agent.start(host.busAddress, games, 'hang');
        const client = new AbortController();
        const polkit = authority({ address: host.busAddress });
        const open = polkit.check(request(games, { signal: client.signal }));
        await until(() => agent?.opened === 1);
        client.abort();
        expect(codeOf(await open)).to.equal('cancelled');
        await until(() => agent?.withdrawn === 1);
      });

      it('takes the dialog down when it is closed', async () => {
        agent = await Agent.start(host.busAddress, games, 'hang');
        const polkit = authority({ address: host.busAddress });
        const open = polkit.check(request(games));
        await until(() => agent?.opened === 1);
        polkit.close();
        expect(codeOf(await open)).to.equal('cancelled');
        await until(() => agent?.withdrawn === 1);
        expect(codeOf(await polkit.check(request(daemon)))).to.equal('cancelled');
      });
    });
  });

  describe('when polkitd or the bus fails', () => {
    let host: PolkitHost;

    beforeEach(async () => {
      host = await PolkitHost.start({ rules });
    });
    afterEach(() => host.stop());

    it('refuses while polkitd is stopped and lets in once it runs again', async () => {
      const polkit = authority({ address: host.busAddress });
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
      await host.stopPolkitd();
      const verdict = await polkit.check(request(daemon));
      expect(codeOf(verdict)).to.equal('error');
      expect(reasonOf(verdict)).to.include('polkit.service');
      await host.startPolkitd(rules);
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
    });

    it('refuses while the bus is stopped and lets in once both run again', async () => {
      const polkit = authority({ address: host.busAddress });
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
      await host.stopBus();
      const verdict = await polkit.check(request(daemon));
      expect(codeOf(verdict)).to.equal('no-bus');
      expect(reasonOf(verdict)).to.include(host.busAddress).and.include('dbus.service');
      await host.startBus();
      await host.startPolkitd(rules);
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
    });

    it('refuses open checks when polkitd dies', async () => {
      const agent = await Agent.start(host.busAddress, games, 'hang');
      const check = authority({ address: host.busAddress }).check(request(games));
      await until(() => agent.opened === 1);
      await host.stopPolkitd();
      expect(codeOf(await check)).to.equal('error');
      await agent.stop();
    });

    it('gives up after its time-out when the bus is frozen', async () => {
      const polkit = authority({ address: host.busAddress });
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
      host.freezeBus(true);
      const verdict = await polkit.check(request(daemon, { timeoutMs: 100 }));
      host.freezeBus(false);
      expect(codeOf(verdict)).to.equal('timeout');
      expect(codeOf(await polkit.check(request(daemon)))).to.equal('authorized');
    });
  });

  describe('with an authority that never answers', () => {
    let host: PolkitHost;
    let silent: SilentAuthority;

    beforeEach(async () => {
      host = await PolkitHost.start();
      silent = await SilentAuthority.start(host.busAddress);
    });
    afterEach(async () => {
      await silent.stop();
      await host.stop();
    });

    it('gives up after its time-out and cancels', async () => {
      const polkit = authority({ address: host.busAddress });
      const verdict = await polkit.check(request(daemon, { timeoutMs: 200 }));
      expect(codeOf(verdict)).to.equal('timeout');
      expect(reasonOf(verdict)).to.include('within 0.2 s').and.include('login_timeout');
      await until(() => silent.cancelled.length === 1);
      expect(silent.cancelled).to.deep.equal(silent.checked);
    });

    it('cancels the one check whose client left', async () => {
      const polkit = authority({ address: host.busAddress });
      const [first, second] = [new AbortController(), new AbortController()];
      const firstCheck = polkit.check(request(daemon, { signal: first.signal }));
      await until(() => silent.checked.length === 1);
      const secondCheck = polkit.check(request(daemon, { signal: second.signal }));
      await until(() => silent.checked.length === 2);
      second.abort();
      expect(codeOf(await secondCheck)).to.equal('cancelled');
      await until(() => silent.cancelled.length === 1);
      expect(silent.cancelled[0]).to.equal(silent.checked[1]);
      first.abort();
      expect(codeOf(await firstCheck)).to.equal('cancelled');
    });

    it('does not ask for a client that has left already', async () => {
      const polkit = authority({ address: host.busAddress });
      const verdict = await polkit.check(request(daemon, { signal: AbortSignal.abort() }));
      expect(codeOf(verdict)).to.equal('cancelled');
      expect(silent.checked).to.deep.equal([]);
    });

    it('refuses all open checks when the bus goes away', async () => {
      const polkit = authority({ address: host.busAddress });
      const checks = Array.from({ length: 20 }, () => polkit.check(request(daemon)));
      await until(() => silent.checked.length === 20);
      await host.stopBus();
      const codes = new Set((await Promise.all(checks)).map(codeOf));
      expect([...codes]).to.deep.equal(['no-bus']);
    });

    it('keeps what the bus would refuse waiting, until there is room', async () => {
      const polkit = authority({ address: host.busAddress });
      const clients = Array.from({ length: 130 }, () => new AbortController());
      const check = ({ signal }: AbortController) => polkit.check(request(daemon, { signal }));
      const checks = clients.slice(0, 100).map(check);
      await until(() => silent.checked.length === 100);
      checks.push(...clients.slice(100).map(check));
      // A check reads this file before it waits: by the end of later reads, the checks are waiting.
      for (let reads = 0; reads < 3; reads++) await readFile(`/proc/${daemon.pid}/status`);
      clients.slice(100, 120).forEach((client) => client.abort());
      await Promise.all(checks.slice(100, 120));
      expect(silent.checked).to.have.length(100);
      clients.slice(0, 5).forEach((client) => client.abort());
      await until(() => silent.checked.length === 105);
      clients.forEach((client) => client.abort());
      const codes = new Set((await Promise.all(checks)).map(codeOf));
      expect([...codes]).to.deep.equal(['cancelled']);
      await until(() => silent.cancelled.length === 105);
    });

    it('sends pid, start time and uid as they are', async () => {
      const polkit = authority({ address: host.busAddress });
      await polkit.check(request(daemon, { timeoutMs: 200 }));
      const { pid, startTime, uid } = daemon;
      expect(silent.subjects).to.deep.equal([
        ['unix-process', { pid, 'start-time': Number(startTime), uid }],
      ]);
    });
  });

  describe('with no bus', () => {
    let directory: string;
    let server: Server | undefined;

    before(() => {
      directory = mkdtempSync(join(tmpdir(), 'polkit-no-bus-'));
    });
    afterEach(() => server?.close());
    after(() => rmSync(directory, { recursive: true }));

    it('refuses at once', async () => {
      const polkit = authority({ address: `unix:path=${directory}/absent` });
      const begin = Date.now();
      const verdict = await polkit.check(request(daemon));
      expect(Date.now() - begin).to.be.below(2000);
      expect(codeOf(verdict)).to.equal('no-bus');
      expect(reasonOf(verdict)).to.include(`${directory}/absent`).and.include('ENOENT');
    });

    for (const address of ['carrier-pigeon:', 'unix:', ':', 'unix:path=/dev/null']) {
      it(`refuses at the address ${address}`, async () => {
        expect(codeOf(await authority({ address }).check(request(daemon)))).to.equal('no-bus');
      });
    }

    const strangers: Record<string, [reply: string | null, code: string]> = {
      closes: [null, 'no-bus'],
      'rejects the user': ['REJECTED EXTERNAL\r\n', 'no-bus'],
      'talks no D-Bus': [`OK 1\r\n${'GET / HTTP/1.1\r\n'.repeat(9)}`, 'no-bus'],
      'says nothing': ['', 'timeout'],
    };
    for (const [what, [reply, code]] of Object.entries(strangers)) {
      it(`refuses when the other end ${what}`, async () => {
        const path = join(directory, 'stranger');
        server = await startStranger(path, reply);
        const polkit = authority({ address: `unix:path=${path}` });
        const verdict = await polkit.check(request(daemon, { timeoutMs: 300 }));
        polkit.close();
        expect(codeOf(verdict), reasonOf(verdict)).to.equal(code);
      });
    }
  });

  it('loads the D-Bus library at the first check only', async () => {
    const module = new URL('../../lib/auth/polkit.js', import.meta.url).href;
    const script = `
      const cache = () => Object.keys(createRequire('${module}').cache).join();
      const { createRequire } = await import('node:module');
      const { PolkitAuthority } = await import('${module}');
      const before = cache().includes('dbus-native');
      const polkit = new PolkitAuthority({ address: 'unix:path=/nonexistent' });
      const { signal } = new AbortController();
      const [action, { pid }, timeoutMs] = ['${manage}', process, 1000];
      await polkit.check({ action, pid, startTime: 1n, uid: 0, timeoutMs, signal });
      process.stdout.write(before + ' ' + cache().includes('dbus-native'));
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await once(child, 'close');
    expect(output).to.equal('false true');
  });
});
