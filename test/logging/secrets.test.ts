import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { messageType, status } from '../../lib/rpc/frame.js';
import { procedures } from '../../lib/rpc/procedures.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { encodeString, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf } from '../peers/frame-socket.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { encodeSaslStart } from '../peers/sasl-frames.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const isRoot = process.getuid?.() === 0;
const saslLacking = saslAccountsLacking();
const numberOf = (name: string): number => procedures.find((row) => row.name === name)!.number;
const setValue = numberOf('SECRET_SET_VALUE');
const getValue = numberOf('SECRET_GET_VALUE');

const password = 'correct-horse-battery';
const wrongPassword = 'staple-guessed-wrongly';
const secret = 'value-of-a-secret-7c1f';

describe('what must not be seen', function () {
  this.timeout(60_000);
  let directory: string;

  beforeEach(async () => {
    directory = await freshDirectory();
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it(`is in no log, audit file or error, with debugging on${saslLacking === undefined ? '' : ` (skipped: ${saslLacking})`}`, async function () {
    if (saslLacking !== undefined) this.skip();
    const users = { fred: password };
    const accounts = await SaslAccounts.create({ directory, mechanisms: 'PLAIN', users });
    const [qemu, secrets] = await Promise.all(
      ['qemu', 'secret'].map((driver) => StandInDaemon.listen(join(directory, driver))),
    );
    const logFile = join(directory, 'log');
    const audit = join(directory, 'audit');
    const proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf: {
        auth_unix_rw: 'sasl',
        log_level: 1,
        log_outputs: `1:stderr 1:file:${logFile}`,
      },
      cluster:
        `[routes]\nqemu = ${qemu!.path}\nsecret = ${secrets!.path}\n` +
        `[log]\nformat = json\naudit = ${audit}\n`,
      env: accounts.serverEnv,
    });
    try {
      const refused = await RawClient.connect(proxy.socket);
      await refused.call(procedure.authSaslInit);
      const guess = encodeSaslStart('PLAIN', Buffer.from(`\0fred\0${wrongPassword}`));
      expect((await refused.call(procedure.authSaslStart, guess)).status).to.equal(status.error);
      await refused.end;

      const client = await RawClient.connect(proxy.socket);
      await client.call(procedure.authSaslInit);
      const start = encodeSaslStart('PLAIN', Buffer.from(`\0fred\0${password}`));
      expect((await client.call(procedure.authSaslStart, start)).status).to.equal(status.ok);
      expect((await client.openUri('qemu:///system')).status).to.equal(status.ok);
      const refusal = new RpcError(errorCode.internal, errorDomain.rpc, `cannot store ${secret}`);
      secrets!.answer(setValue, () => refusal);
      secrets!.answer(getValue, () => encodeString(secret));
      await client.call(setValue, encodeString(secret));
      expect((await client.call(getValue)).payload.toString()).to.contain(secret);
      // In frames that nobody takes, too.
      const odd = [
        frameOf({ procedure: setValue, version: 2, serial: 90 }, encodeString(secret)),
        frameOf({ procedure: setValue, status: 1, serial: 91 }, encodeString(secret)),
        frameOf({ procedure: setValue, type: messageType.reply }, encodeString(secret)),
        frameOf({ procedure: 1, serial: 92 }, encodeString(secret)),
      ];
      client.send(...odd);
      for (const serial of [90, 91, 92]) await client.replyTo(serial);
      const link = secrets!.connections[0]!;
      link.send(frameOf({ procedure: getValue, type: messageType.reply }, encodeString(secret)));
      link.send(Buffer.from(secret));
      await link.end;
      client.destroy();
      // Whoever looked whether the proxy listens has left before.
      const end = /SECRET_SET_VALUE[^]*the client left/;
      await until(() => end.test(readFileSync(logFile, 'utf8')), {
        what: 'the end of it in the log',
      });

      const said = [proxy.log(), readFileSync(logFile, 'utf8'), readFileSync(audit, 'utf8')];
      expect(said[1]).to.contain('SECRET_SET_VALUE');
      expect(said[2]).to.contain('SECRET_SET_VALUE');
      for (const hidden of [password, wrongPassword, secret]) {
        for (const form of ['utf8', 'hex', 'base64'] as const) {
          // Without the end, which base64 cuts elsewhere when more follows.
          const text = Buffer.from(hidden).toString(form).slice(0, -4);
          for (const words of said) expect(words).to.not.contain(text);
        }
      }
    } finally {
      await proxy.stop();
      await Promise.all([qemu!.stop(), secrets!.stop()]);
    }
  });

  for (const umask of [0, 0o777]) {
    it(`is closed to others under umask ${umask.toString(8)}${isRoot ? '' : ' (skipped: needs root)'}`, async function () {
      if (!isRoot) this.skip();
      const before = process.umask(umask);
      let proxy: Proxy | null = null;
      try {
        const run = join(directory, 'run');
        proxy = await Proxy.start({
          directory: run,
          conf: {
            unix_sock_rw_perms: '0770',
            unix_sock_ro_perms: '0777',
            log_outputs: `1:file:${join(run, 'log')}`,
          },
          cluster: `[log]\naudit = ${join(run, 'audit')}\n`,
        });
        const made = readdirSync(run).filter((name) => !/\.(conf|ini)$/.test(name));
        const modes = made.map((name) => [
          name,
          (statSync(join(run, name)).mode & 0o7777).toString(8),
        ]);
        expect(Object.fromEntries(modes)).to.deep.equal({
          log: '600',
          audit: '600',
          'virtproxyd.pid': '644',
          'libvirt-sock': '770',
          'libvirt-sock-ro': '777',
          'libvirt-admin-sock': '700',
          'virtproxyd-admin-sock': '700',
        });
      } finally {
        process.umask(before);
        await proxy?.stop();
      }
    });
  }
});
