import { expect } from 'chai';
import { errorCode, RpcError } from '../../../lib/rpc/rpc-error.js';
import { parseConnectionUri } from '../../../lib/worker/daemon/connection-uri.js';

const targets: readonly (readonly [uri: string, driver: string, opened: string])[] = [
  ['qemu:///system', 'qemu', 'qemu:///system'],
  ['qemu+unix:///session', 'qemu', 'qemu:///session'],
  ['qemu:/system', 'qemu', 'qemu:///system'],
  ['qemu:system', 'qemu', 'qemu://system'],
  ['qemu://', 'qemu', 'qemu://'],
  ['test:///default', 'test', 'test:///default'],
  ['test:///some/file%20name.xml', 'test', 'test:///some/file%20name.xml'],
  ['QEMU:///system', 'QEMU', 'QEMU:///system'],
  ['lxc:///system#fragment', 'lxc', 'lxc:///system'],
  ['qemu+unix:///system?socket=/run/libvirt/virtproxyd-sock', 'qemu', 'qemu:///system'],
  ['qemu:///system?no_verify=1&foo=bar&mode=direct', 'qemu', 'qemu:///system?foo=bar'],
  ['qemu:///embed?root=/tmp/here&&x', 'qemu', 'qemu:///embed?root=/tmp/here&x'],
  ['qemu:///system?', 'qemu', 'qemu:///system'],
  ['qemu:///system?names=1', 'qemu', 'qemu:///system?names=1'],
];

const refusals: readonly (readonly [uri: string, code: number, words: RegExp])[] = [
  ['', errorCode.noConnection, /does not include a driver name/],
  ['/system', errorCode.noConnection, /URI '\/system' does not include a driver name/],
  ['//host/system', errorCode.noConnection, /does not include a driver name/],
  ['qemu:///sys tem', errorCode.internal, /Unable to parse URI qemu:\/\/\/sys tem/],
  ['qemu:///system\n', errorCode.internal, /Unable to parse URI/],
  ['qemu:///syst\u00e9m', errorCode.internal, /Unable to parse URI/],
  ['qemu:///%2', errorCode.internal, /Unable to parse URI/],
  [':///system', errorCode.internal, /Unable to parse URI/],
  ['1qemu:///system', errorCode.internal, /Unable to parse URI/],
  ['qemu+pigeon:///system', errorCode.invalidArgument, /transport in URL not recognised/],
  ['qemu+:///system', errorCode.invalidArgument, /transport in URL not recognised/],
  ['qemu+unix+tls:///system', errorCode.invalidArgument, /transport in URL not recognised/],
  ['qemu+tls:///system', errorCode.operationUnsupported, /names another server/],
  ['qemu+ssh://root@host/system', errorCode.operationUnsupported, /names another server/],
  ['qemu://host/system', errorCode.operationUnsupported, /names another server/],
  ['qemu+unix://host/system', errorCode.operationUnsupported, /names another server/],
];

describe('the URI of CONNECT_OPEN', () => {
  for (const [uri, driver, opened] of targets) {
    it(`${uri} leads to ${opened} of ${driver}`, () => {
      expect(parseConnectionUri(uri)).to.eql({ driver, uri: opened });
    });
  }

  for (const [uri, code, words] of refusals) {
    it(`${JSON.stringify(uri)} is refused: ${words.source}`, () => {
      let refusal: unknown;
      try {
        parseConnectionUri(uri);
      } catch (error) {
        refusal = error;
      }
      expect(refusal).to.be.instanceOf(RpcError);
      expect((refusal as RpcError).code).to.equal(code);
      expect((refusal as RpcError).message).to.match(words);
    });
  }

  it('is read in time that grows with its length alone', () => {
    const started = performance.now();
    parseConnectionUri(`qemu:///${'a/%20?&'.repeat(400_000)}`);
    expect(performance.now() - started).to.be.below(5000);
  });
});
