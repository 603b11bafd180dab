import { expect } from 'chai';
import { program } from '../../lib/rpc/frame.js';
import {
  changesState,
  isForwardedProgram,
  parseProcedures,
  procedureAt,
  procedureName,
  procedures,
  secondaryDrivers,
} from '../../lib/rpc/procedures.js';
import { procedure } from '../../lib/rpc/session-messages.js';

const { remote, qemu, lxc } = program;
const numbersOf = (
  wanted: (row: (typeof procedures)[number]) => boolean,
): (readonly [program: number, number: number])[] =>
  procedures.filter(wanted).map((row) => [row.program, row.number]);

describe('procedure table', () => {
  it("has every procedure of libvirt 11.3.0's programs, once and in order", () => {
    for (const [number, count] of [
      [remote, 453],
      [qemu, 7],
      [lxc, 1],
    ] as const) {
      expect(procedures.filter((row) => row.program === number).map((row) => row.number)).to.eql(
        Array.from({ length: count }, (_, at) => at + 1),
      );
    }
    expect(procedures).to.have.length(461);
  });

  it('routes as many of them to each daemon as the protocol has for it', () => {
    const counts = Object.fromEntries(
      ['session', 'hypervisor', ...secondaryDrivers].map((route) => [
        route,
        procedures.filter((row) => row.route === route).length,
      ]),
    );
    expect(counts).to.eql({
      session: 7,
      hypervisor: 305,
      interface: 16,
      network: 35,
      nodedev: 23,
      nwfilter: 14,
      secret: 14,
      storage: 47,
    });
    expect(procedures.filter(({ isEvent }) => isEvent)).to.have.length(54);
  });

  const sentinels: [number, number, string, string][] = [
    [remote, 1, 'CONNECT_OPEN', 'session'],
    [remote, 3, 'CONNECT_GET_TYPE', 'hypervisor'],
    [remote, 23, 'DOMAIN_LOOKUP_BY_NAME', 'hypervisor'],
    [remote, 36, 'CONNECT_LIST_DEFINED_NETWORKS', 'network'],
    [remote, 60, 'CONNECT_SUPPORTS_FEATURE', 'hypervisor'],
    [remote, 66, 'AUTH_LIST', 'session'],
    [remote, 76, 'STORAGE_POOL_CREATE_XML', 'storage'],
    [remote, 110, 'CONNECT_GET_URI', 'hypervisor'],
    [remote, 220, 'INTERFACE_CHANGE_BEGIN', 'interface'],
    [remote, 281, 'CONNECT_LIST_ALL_STORAGE_POOLS', 'storage'],
    [remote, 370, 'STORAGE_POOL_EVENT_LIFECYCLE', 'storage'],
    [remote, 419, 'CONNECT_SET_IDENTITY', 'hypervisor'],
    [remote, 453, 'DOMAIN_EVENT_NIC_MAC_CHANGE', 'hypervisor'],
    [qemu, 1, 'DOMAIN_MONITOR_COMMAND', 'hypervisor'],
    [lxc, 1, 'DOMAIN_OPEN_NAMESPACE', 'hypervisor'],
  ];
  for (const [programNumber, number, name, route] of sentinels) {
    it(`has ${name} at ${number}, served by ${route}`, () => {
      expect(procedureAt(programNumber, number)).to.include({ name, route });
      expect(procedureName(programNumber, number)).to.equal(name);
    });
  }

  it('leaves to the proxy only procedures that it knows by name', () => {
    const known: number[] = Object.values(procedure);
    for (const row of procedures.filter(({ route }) => route === 'session')) {
      expect(known, row.name).to.include(row.number);
    }
  });

  it('marks the calls that open a stream', () => {
    expect(numbersOf((row) => row.opensStream)).to.eql(
      [148, 201, 208, 209, 211, 215, 296, 304].map((number) => [remote, number]),
    );
  });

  it('marks the calls that carry descriptors, and the replies', () => {
    expect(numbersOf((row) => row.descriptors === 'request')).to.eql(
      [249, 309, 310, 443].map((number) => [remote, number]),
    );
    expect(numbersOf((row) => row.descriptors === 'reply')).to.eql([
      [remote, 343],
      [qemu, 7],
      [lxc, 1],
    ]);
  });

  it('marks the calls that register for events or end that', () => {
    expect(numbersOf((row) => row.registration !== null)).to.eql([
      ...[105, 106, 167, 168, 313, 314, 316, 317, 360, 361, 368, 369, 374, 375, 380, 381].map(
        (number) => [remote, number],
      ),
      [qemu, 4],
      [qemu, 5],
    ]);
  });

  it('knows which calls are for the proxy itself', () => {
    expect(numbersOf((row) => row.isOwn)).to.eql(
      [1, 2, 60, 66, 67, 68, 69, 70, 419].map((number) => [remote, number]),
    );
  });

  it('tells the calls that may change something from those that ask, as their names do', () => {
    const names = procedures.filter(({ isEvent }) => !isEvent).map(({ name }) => name);
    const changing = new Set(
      procedures.filter((row) => row.changesState && !row.isEvent).map(({ name }) => name),
    );
    const asking =
      /^(AUTH|CONNECT)_|_(GET|LIST|LOOKUP|NUM|IS|HAS)_|_(STATS|STATS_FLAGS|PEEK|NUM|GET|SCREENSHOT|ADDRESSES|DOWNLOAD|CURRENT)$/;
    expect(names.filter((name) => !asking.test(name) && !changing.has(name))).to.eql([]);
    expect(names.filter((name) => asking.test(name) && changing.has(name))).to.eql([
      'CONNECT_SET_IDENTITY',
    ]);
    expect(changing)
      .to.include('DOMAIN_SET_MEMORY_STATS_PERIOD')
      .and.include('DOMAIN_OPEN_CONSOLE');
    expect(changesState(remote, 10)).to.be.true;
    expect(changesState(remote, 23)).to.be.false;
    expect(changesState(qemu, 1)).to.be.true;
    // What the table does not know may be anything.
    expect(changesState(remote, 4000)).to.be.true;
  });

  it('knows which events the server sends', () => {
    for (const [programNumber, number] of [
      [remote, 107],
      [remote, 370],
      [remote, procedure.connectEventConnectionClosed],
      [qemu, 6],
    ] as const) {
      expect(procedureAt(programNumber, number)?.isEvent).to.be.true;
    }
    expect(procedureAt(remote, 105)?.isEvent).to.be.false;
  });

  it('has no row for numbers a newer libvirt may use, and names them by number', () => {
    for (const [programNumber, number] of [
      [remote, 0],
      [remote, 454],
      [remote, 0xffffffff],
      [qemu, 8],
      [lxc, 0],
      [program.keepalive, 1],
      [program.admin, 1],
      [0x1234, 1],
    ] as const) {
      expect(procedureAt(programNumber, number)).to.be.undefined;
      expect(procedureName(programNumber, number)).to.equal(`procedure ${number}`);
    }
  });

  it('forwards the remote, qemu and lxc programs only', () => {
    for (const number of [remote, qemu, lxc]) expect(isForwardedProgram(number)).to.be.true;
    for (const number of [program.keepalive, program.admin, 0, 0x1234, 0xffffffff]) {
      expect(isForwardedProgram(number)).to.be.false;
    }
  });

  describe('parser', () => {
    it('reads a row with all its marks', () => {
      expect(
        parseProcedures(
          '\nremote 9 A_CALL storage write fds-request change register callback own\n',
        ),
      ).to.eql([
        {
          program: remote,
          number: 9,
          name: 'A_CALL',
          route: 'storage',
          isEvent: false,
          opensStream: true,
          descriptors: 'request',
          registration: 'register',
          carriesCallback: true,
          changesState: true,
          isOwn: true,
        },
      ]);
    });

    for (const row of [
      '',
      'remote',
      'remote 1',
      'remote 1 NAME',
      'remote 1 NAME nowhere',
      'remote 1 NAME toString',
      'remote 1 NAME hypervisor shiny',
      'remote 1 NAME hypervisor event shiny',
      'remote 1 NAME hypervisor fds',
      'remote 1 NAME hypervisor EVENT',
      'remote 1 NAME  hypervisor',
      'remote 1  hypervisor',
      'remote x NAME hypervisor',
      'remote 0 NAME hypervisor',
      'remote -1 NAME hypervisor',
      'remote 1.5 NAME hypervisor',
      'remote 1e9 NAME hypervisor',
      'admin 1 NAME hypervisor',
      'toString 1 NAME hypervisor',
      'Remote 1 NAME hypervisor',
      'remote\t1\tNAME\thypervisor',
    ]) {
      it(`refuses "${row}" and shows it`, () => {
        const rows = `remote 1 CONNECT_OPEN session\n${row}\nremote 2 CONNECT_CLOSE session`;
        expect(() => parseProcedures(rows)).to.throw(`cannot read the row "${row}"`);
      });
    }
  });
});
