import { execFileSync } from 'node:child_process';
import { userInfo } from 'node:os';
import { expect } from 'chai';
import { groupId, groupName, groupsOfUser, userId, userName } from '../../lib/native/accounts.js';

// Above every allocation scheme of the distributions; -1 is "no user".
const nobodyHasThis = 3_999_999_999;

describe('native/accounts', () => {
  it('names users and groups as getent does', () => {
    const entries = (database: string): string[][] =>
      execFileSync('getent', [database], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .slice(0, 20)
        .map((line) => line.split(':'));
    for (const [name, , uid] of entries('passwd')) expect(userName(Number(uid))).to.equal(name);
    for (const [name, , gid] of entries('group')) {
      expect(groupName(Number(gid))).to.equal(name);
      expect(groupId(name!)).to.equal(Number(gid));
    }
    expect(userName(process.getuid!())).to.equal(userInfo().username);
    for (const [name, , uid] of entries('passwd')) expect(userId(name!)).to.equal(Number(uid));
  });

  it('gives the groups of a user as id does', () => {
    for (const user of ['root', 'nobody', userInfo().username]) {
      const groups = execFileSync('id', ['-G', user], { encoding: 'utf8' }).trim().split(' ');
      const uid = Number(execFileSync('id', ['-u', user], { encoding: 'utf8' }));
      expect(groupsOfUser(uid)).to.have.members(groups.map(Number));
    }
  });

  it('answers null where there is no entry', () => {
    expect(userName(nobodyHasThis)).to.be.null;
    expect(groupName(nobodyHasThis)).to.be.null;
    expect(groupId('no-such-group-here')).to.be.null;
    expect(userId('no-such-user-here')).to.be.null;
    expect(groupsOfUser(nobodyHasThis)).to.be.null;
  });

  it('answers a repeated question from memory, and stays bounded', () => {
    userName(0);
    const start = performance.now();
    for (let turn = 0; turn < 10_000; turn++) userName(0);
    const perCall = (performance.now() - start) / 10_000;
    expect(perCall, 'milliseconds').to.be.below(0.02);
    for (let uid = 0; uid < 300; uid++) userName(nobodyHasThis - uid);
    expect(userName(0)).to.equal('root');
  });
});
