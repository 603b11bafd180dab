import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { certificatesLacking } from '../peers/certificates.js';
import { run, searchPath } from '../peers/clients.js';
import { whyNoHost } from '../peers/modular-host.js';
import { saslAccountsLacking } from '../peers/sasl-accounts.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory } from '../peers/waiting.js';

/** REMOTE_ACCESS_PAGE names another manual page that has the commands. */
const page =
  process.env['REMOTE_ACCESS_PAGE'] ??
  fileURLToPath(new URL('../../../man/virtproxyd-remote.7', import.meta.url));

/** The characters that man(7) writes in other ways. */
const characters: Readonly<Record<string, string>> = { '\\-': '-', '\\e': '\\', '\\(ti': '~' };

/** The commands of a part of the page, as they are typed. */
function commands(partOf: (text: string) => string): string[] {
  const examples = partOf(readFileSync(page, 'utf8')).matchAll(/^\.EX\n(.*?)^\.EE$/gms);
  return [...examples].map(([, text]) =>
    text!.replaceAll(/\\(\(..|.)/g, (escape) => {
      const character = characters[escape];
      if (character === undefined) throw new Error(`${page}: what does ${escape} stand for?`);
      return character;
    }),
  );
}

const readOnlyHeading = '.SH CLIENTS THAT MAY ONLY LOOK\n';
const blocks = commands((text) => text.split(readOnlyHeading)[0] ?? '');
const readOnlyBlocks = commands((text) => text.split(readOnlyHeading)[1] ?? '');

function findObstacle(): string | null {
  const lacking = whyNoHost() ?? certificatesLacking('virt-pki-query-dn') ?? saslAccountsLacking();
  if (lacking !== undefined) return lacking;
  const trial = spawnSync('unshare', [
    '--mount',
    '--net',
    '--pid',
    '--fork',
    '--mount-proc',
    'true',
  ]);
  if (trial.status !== 0) return 'needs unshare with namespaces of all kinds';
  return blocks.length === 0 || readOnlyBlocks.length === 0 ? `${page} lacks its commands` : null;
}

const obstacle = findObstacle();

/**
 * Runs in namespaces of its own, which end with it: /run and the network with its ports are empty
 * there. Whatever the commands print is kept apart from what the test asks for.
 */
const scriptOf = (steps: readonly string[]): string => `
set -euo pipefail
mount -t tmpfs tmpfs /run
ip link set lo up
exec 3>&1 1>&2
ask() {
  virsh --connect "qemu+tls://$HOST/system?pkipath=$MONITOR" "$@" >&3 2>&3 || echo "status $?" >&3
}
try() {
  virsh --connect "qemu+tls://$HOST/system?pkipath=$ALICE&authfile=$ALICE/auth.conf" uri >&3 2>&3 || echo "status $?" >&3
}
${steps.join('\n')}
`;

describe(`secure remote access by virtproxyd-remote(7)${obstacle === null ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(60_000);
  let directory: string;
  let env: Record<string, string>;

  before(async function () {
    if (obstacle !== null) this.skip();
    const host = await sharedHost();
    directory = await freshDirectory();
    const [libvirt, bin] = [join(directory, 'libvirt'), join(directory, 'bin')];
    await mkdir(libvirt);
    await writeFile(join(libvirt, 'virtproxyd-cluster.ini'), host.routesIni());
    await mkdir(bin);
    const program = fileURLToPath(new URL('../peers/run-proxy.js', import.meta.url));
    await writeFile(
      join(bin, 'virtproxyd'),
      `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`,
    );
    await chmod(join(bin, 'virtproxyd'), 0o755);
    env = {
      PATH: `${bin}:${searchPath}`,
      HOST: 'localhost',
      PKI: join(directory, 'pki'),
      LIBVIRT: libvirt,
      SASL: join(directory, 'sasl2'),
      SASL_CONF_PATH: join(directory, 'sasl2'),
      ALICE: join(directory, 'alice'),
      MONITOR: join(directory, 'monitor'),
    };
  });
  after(async () => {
    if (obstacle === null) await rm(directory, { recursive: true, force: true });
  });

  async function outputOf(script: string): Promise<string> {
    const namespaces = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const { code, stdout, stderr } = await run('unshare', [...namespaces, 'bash', '-c', script], {
      env,
      timeoutMs: 60_000,
    });
    expect(code, stderr).to.equal(0);
    return stdout;
  }

  it('works as it is written, for alice and for nobody else', async () => {
    const last = blocks.length - 1;
    const script = scriptOf([
      ...blocks.slice(0, last),
      'try',
      'mv "$ALICE/auth.conf" "$ALICE/right.conf"',
      'sed s/password=.*/password=wrong/ "$ALICE/right.conf" >"$ALICE/auth.conf"',
      'try',
      'mv "$ALICE/right.conf" "$ALICE/auth.conf"',
      'mv "$ALICE/clientcert.pem" "$ALICE/hidden.pem"',
      'try',
      'mv "$ALICE/hidden.pem" "$ALICE/clientcert.pem"',
      blocks[last]!,
      'try',
    ]);
    const stdout = await outputOf(script);
    const [right, ...refused] = stdout
      .split(/(?<=status 1\n|\/auth\.conf\n)/)
      .filter((text) => text.trim() !== '');
    expect(right).to.match(/^qemu\+tls:\/\/localhost\/system\?/);
    expect(refused).to.have.length(3);
    expect(refused[0]).to.match(/authentication failed/);
    expect(refused[1]).to.match(/Unable to read TLS confirmation/);
    expect(refused[2]).to.match(/authentication failed/);
  });

  it('has a monitoring certificate, with which one may only look', async () => {
    const conf = `cat >"$LIBVIRT/virtproxyd.conf" <<END
listen_tls = 1
auth_tls = "none"
ca_file = "$PKI/CA/cacert.pem"
cert_file = "$PKI/libvirt/servercert.pem"
key_file = "$PKI/libvirt/private/serverkey.pem"
tls_allowed_dn_list = [ "CN=monitor" ]
END`;
    const last = readOnlyBlocks.length - 1;
    const isCommand = /^(certtool|cat|virsh|install) /gm;
    expect(readOnlyBlocks[last - 1]!.match(isCommand)).to.have.length(3);
    const script = scriptOf([
      'rm -rf "$PKI"',
      ...blocks.slice(0, 3),
      conf,
      ...readOnlyBlocks.slice(0, last),
      'virtproxyd --check-config --config "$LIBVIRT/virtproxyd.conf" >&3',
      'virtproxyd --daemon --config "$LIBVIRT/virtproxyd.conf"',
      readOnlyBlocks[last]!,
      'ask list --all',
      'ask undefine nobody',
      'ask net-define /dev/stdin <<< "<network><name>looked</name></network>"',
    ]);
    const stdout = await outputOf(script);
    expect(stdout).to.match(/^The configuration is valid\.$/m);
    expect(stdout).to.match(/^ Id +Name +State$/m);
    expect(stdout).to.match(
      /^error: operation forbidden: read only access prevents virNetworkDefineXML$/m,
    );
    expect(stdout.match(/^status 1$/gm)).to.have.length(2);
  });
});
