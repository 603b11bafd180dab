import { expect } from 'chai';
import { originOf } from '../../../lib/primary/clients/origin.js';

describe('primary/origin', () => {
  const ofAddress = (address: string): string =>
    originOf({ local: null, remoteAddress: `${address};4711` });

  const table: readonly [address: string, origin: string][] = [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:db8::9', '2001:db8:0:0::/64'],
    ['2001:DB8:0:0:1::', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64%eth0'],
    ['fe80::1%eth1', 'fe80:0:0:0::/64%eth1'],
  ];
  for (const [address, origin] of table) {
    it(`is ${origin} for ${address}`, () => {
      expect(ofAddress(address)).to.equal(origin);
    });
  }

  it('is the user for a local client, whichever process of his it is', () => {
    const local = {
      pid: 1,
      uid: 1000,
      gid: 1000,
      groups: [],
      startTime: null,
      selinuxContext: null,
    };
    expect(originOf({ local, remoteAddress: null })).to.equal('uid 1000');
    expect(originOf({ local: { ...local, pid: 2, gid: 7 }, remoteAddress: null })).to.equal(
      'uid 1000',
    );
  });
});
