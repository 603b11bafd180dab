import { expect } from 'chai';
import { AdminError, type AdminClient as ConnectedClient } from '../../lib/admin/backend.js';
import { adminProcedure as number, maxListEntries } from '../../lib/admin/messages.js';
import { headerLength, program, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain } from '../../lib/rpc/rpc-error.js';
import {
  readTypedParameters,
  writeTypedParameters,
  type TypedParameter,
} from '../../lib/rpc/typed-parameters.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { readError } from '../peers/raw-client.js';
import { admin as frames, errors } from '../rpc/fixtures.js';
import { nameClient, unsigned, type AdminClient } from './admin-client.js';
import { AdminHost, someClients } from './fake-backend.js';

const own = 'virtproxyd';

/**
 * Arguments that a procedure takes, without the flags that follow; null where it has none at all.
 */
const goodArguments: Readonly<Record<keyof typeof number, ((writer: XdrWriter) => void) | null>> = {
  connectOpen: () => undefined,
  connectClose: null,
  connectGetLibVersion: null,
  connectListServers: (writer) => writer.unsigned(1),
  connectLookupServer: (writer) => writer.string(own),
  serverGetThreadpoolParameters: (writer) => writer.string(own),
  serverSetThreadpoolParameters: (writer) => {
    writeTypedParameters(writer.string(own), [unsigned('maxWorkers', 5)]);
  },
  serverListClients: (writer) => writer.string(own).unsigned(1),
  serverLookupClient: (writer) => writer.string(own).unsignedHyper(5n),
  clientGetInfo: (writer) => nameClient(writer, own, 5),
  clientClose: (writer) => nameClient(writer, own, 5),
  serverGetClientLimits: (writer) => writer.string(own),
  serverSetClientLimits: (writer) => {
    writeTypedParameters(writer.string(own), [unsigned('nclients_max', 50)]);
  },
  connectGetLoggingOutputs: () => undefined,
  connectGetLoggingFilters: () => undefined,
  connectSetLoggingOutputs: (writer) => writer.bool(true).string('1:stderr'),
  connectSetLoggingFilters: (writer) => writer.bool(false),
  serverUpdateTlsFiles: (writer) => writer.string(own),
  connectSetDaemonTimeout: (writer) => writer.unsigned(30),
  connectDaemonShutdown: () => undefined,
};

const names = Object.keys(goodArguments) as (keyof typeof number)[];

/** The procedures that name a server, and those that name a client. */
const withServer = names.filter((name) => /^server|lookupServer|^client/i.test(name));

describe('procedures of the admin program', () => {
  let host: AdminHost;
  let client: AdminClient;

  beforeEach(async () => {
    host = await AdminHost.start();
    client = await host.connect();
  });
  afterEach(() => host.stop());

  const ask = (
    name: keyof typeof number,
    write?: (writer: XdrWriter) => void,
  ): Promise<XdrReader> => client.ask(number[name], write);

  it('are twenty', () => {
    expect(Object.values(number)).to.deep.equal(
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
  });

  for (const name of names) {
    const write = goodArguments[name];
    const whole = (writer: XdrWriter): void => {
      write?.(writer);
      if (write !== null) writer.unsigned(0);
    };

    it(`${name} is answered`, async () => {
      expect((await client.admin(number[name], whole)).status).to.equal(status.ok);
    });

    if (write === null) continue;

    it(`${name} knows no flags`, async () => {
      const error = await client.refused(number[name], (writer) => {
        write(writer);
        writer.unsigned(4);
      });
      expect(error.code).to.equal(errorCode.invalidArgument);
      expect(error.domain).to.equal(errorDomain.admin);
      expect(error.message).to.contain('0x4');
      expect(host.backend.said).to.deep.equal([]);
    });

    it(`${name} with arguments cut off anywhere is refused and does nothing`, async () => {
      const writer = new XdrWriter();
      whole(writer);
      const payload = Buffer.from(writer.finish());
      for (let length = 0; length < payload.length; length++) {
        const reply = await client.call(number[name], payload.subarray(0, length), header);
        expect(readError(reply), `${length} bytes`).to.include({
          code: errorCode.rpc,
          domain: errorDomain.rpc,
          message: 'Unable to decode message payload',
        });
      }
      expect(host.backend.said).to.deep.equal([]);
    });
  }

  for (const name of withServer) {
    it(`${name} of a server that is not there`, async () => {
      const error = await client.refused(number[name], (writer) => {
        const wanted = new XdrWriter();
        goodArguments[name]?.(wanted);
        const rest = wanted.finish().subarray(4 + Math.ceil(own.length / 4) * 4);
        writer.string('nosuch');
        for (let at = 0; at < rest.length; at += 4) writer.unsigned(rest.readUInt32BE(at));
        writer.unsigned(0);
      });
      const ofAdmin = ['serverSetThreadpoolParameters', 'clientGetInfo', 'serverSetClientLimits'];
      expect(error).to.include({
        code: errorCode.noServer,
        domain: ofAdmin.includes(name) ? errorDomain.admin : errorDomain.rpc,
        message: "Server not found: No server named 'nosuch'",
      });
      expect(host.backend.said).to.deep.equal([]);
    });
  }

  for (const [name, domain] of [
    ['serverLookupClient', errorDomain.rpc],
    ['clientGetInfo', errorDomain.admin],
    ['clientClose', errorDomain.rpc],
  ] as const) {
    for (const id of [0n, 4n, 1n << 53n, (1n << 64n) - 1n]) {
      it(`${name} of client ${id}, who is not there`, async () => {
        const error = await client.refused(number[name], (writer) => {
          writer.string(own).unsignedHyper(id);
          if (name !== 'serverLookupClient') writer.hyper(0n).unsigned(0);
          writer.unsigned(0);
        });
        expect(error).to.include({
          code: errorCode.noClient,
          domain,
          message: `Client not found: No client with matching ID '${id}'`,
        });
        expect(host.backend.said).to.deep.equal([]);
      });
    }
  }

  it('errors about servers and clients are byte for byte those of libvirtd', async () => {
    client.send(encodeCallOf(number.connectLookupServer, 1, (writer) => writer.string('nosuch')));
    client.send(
      encodeCallOf(number.serverLookupClient, 2, (writer) =>
        writer.string('admin').unsignedHyper(999n),
      ),
    );
    for (const [serial, frame] of [
      [1, errors.noServer],
      [2, errors.noClient],
    ] as const) {
      const { payload } = await client.replyTo(serial);
      expect(payload.toString('hex')).to.equal(frame.subarray(headerLength).toString('hex'));
    }
  });

  it('the version is one number', async () => {
    const reader = await client.ask(number.connectGetLibVersion);
    expect(reader.unsignedHyper('version')).to.equal(12_034_056n);
    expect(reader.left).to.equal(0);
  });

  it('there are two servers', async () => {
    expect(await client.servers()).to.deep.equal(['virtproxyd', 'admin']);
    const reader = await client.ask(number.connectListServers, (writer) =>
      writer.unsigned(0).unsigned(0),
    );
    expect([reader.unsigned('entries'), reader.unsigned('count'), reader.left]).to.deep.equal([
      0, 2, 0,
    ]);
    for (const name of await client.servers()) {
      const found = await client.ask(number.connectLookupServer, (writer) =>
        writer.string(name).unsigned(0),
      );
      expect(found.string('name', 100)).to.equal(name);
    }
  });

  it('clients are listed with id, time and transport', async () => {
    expect(await client.clients(own)).to.deep.equal([
      { server: own, id: 3, timestamp: 1_700_000_000, transport: 0 },
      { server: own, id: 5, timestamp: 1_700_000_001, transport: 1 },
      { server: own, id: 2 ** 40, timestamp: 1_700_000_002, transport: 2 },
    ]);
    const reader = await client.ask(number.serverListClients, (writer) =>
      writer.string(own).unsigned(0).unsigned(0),
    );
    expect([reader.unsigned('entries'), reader.unsigned('count'), reader.left]).to.deep.equal([
      0, 3, 0,
    ]);
    expect((await client.lookup(own, 2 ** 40)).transport).to.equal(2);
  });

  it('a list that no client would take is refused, its length is not', async () => {
    const [one] = someClients;
    host.backend.clients = () => Array<ConnectedClient>(maxListEntries + 1).fill(one!);
    const list = (wanted: number) => (writer: XdrWriter) =>
      writer.string(own).unsigned(wanted).unsigned(0);
    expect((await client.refused(number.serverListClients, list(1))).message).to.contain('16384');
    const reader = await client.ask(number.serverListClients, list(0));
    expect([reader.unsigned('entries'), reader.unsigned('count')]).to.deep.equal([0, 16_385]);
  });

  it('a UNIX client is known by user, group and process', async () => {
    expect(await client.clientInfo(own, 3)).to.deep.equal({
      readonly: true,
      unix_user_id: 0,
      unix_user_name: 'root',
      unix_group_id: 0,
      unix_group_name: 'root',
      unix_process_id: 4711,
      selinux_context: 'u:r:t',
    });
  });

  it('a remote client is known by address and login', async () => {
    expect(await client.clientInfo(own, 5)).to.deep.equal({
      readonly: false,
      sasl_user_name: 'fred',
      sock_addr: '192.0.2.7:40000',
    });
    expect(await client.clientInfo(own, 2 ** 40)).to.deep.equal({
      readonly: false,
      sock_addr: '[2001:db8::7]:40001',
      tls_x509_dname: 'O=Acme,CN=wilma',
    });
  });

  it('what is said of a client has the very names and types of libvirtd', async () => {
    const reply = await client.admin(number.clientGetInfo, (writer) =>
      nameClient(writer, 'admin', 1).unsigned(0),
    );
    const theirs = readTypedParameters(new XdrReader(frames.clientInfoReply, headerLength), 64);
    const ours = readTypedParameters(new XdrReader(reply.payload), 64);
    expect(shape(ours)).to.deep.equal(shape(theirs));
  });

  it('the worker pool has the very names and types of libvirtd', async () => {
    const reply = await client.admin(number.serverGetThreadpoolParameters, (writer) =>
      writer.string(own).unsigned(0),
    );
    const theirs = readTypedParameters(new XdrReader(frames.threadpoolReply, headerLength), 32);
    const ours = readTypedParameters(new XdrReader(reply.payload), 32);
    expect(shape(ours)).to.deep.equal(shape(theirs));
    expect(ours.map(({ value }) => value)).to.deep.equal([2, 4, 3, 1, 0, 6]);
  });

  it('a user id beyond 2^31 is as the wire can carry it', async () => {
    const [one] = someClients;
    const local = { ...one!.local!, uid: 0xfffffffe };
    host.backend.client = () => ({ ...one!, local });
    expect((await client.clientInfo(own, 3)).unix_user_id).to.equal(-2);
  });

  describe('the log', () => {
    it('outputs and filters are shown with their number', async () => {
      const outputs = await client.ask(number.connectGetLoggingOutputs, (writer) =>
        writer.unsigned(0),
      );
      expect(outputs.string('outputs', 100)).to.equal('1:file:/a/log 3:stderr');
      expect(outputs.unsigned('count')).to.equal(2);
      const none = await client.ask(number.connectGetLoggingFilters, (writer) =>
        writer.unsigned(0),
      );
      expect([none.bool('present'), none.unsigned('count'), none.left]).to.deep.equal([
        false,
        0,
        0,
      ]);
      host.backend.loggingFilters = '1:session';
      const one = await client.ask(number.connectGetLoggingFilters, (writer) => writer.unsigned(0));
      expect(one.optional('filters', () => one.string('filters', 100))).to.equal('1:session');
      expect(one.unsigned('count')).to.equal(1);
    });

    it('outputs and filters are set, or reset by nothing', async () => {
      for (const text of ['1:stderr', '', null]) {
        for (const name of ['connectSetLoggingOutputs', 'connectSetLoggingFilters'] as const) {
          await ask(name, (writer) => {
            writer.optional(text, (present) => writer.string(present));
            writer.unsigned(0);
          });
        }
      }
      expect(host.backend.said).to.deep.equal([
        'outputs 1:stderr',
        'filters 1:stderr',
        'outputs ',
        'filters ',
        'outputs null',
        'filters null',
      ]);
    });
  });

  it('what the daemon cannot do is told with its sentence', async () => {
    for (const [fault, code] of [
      ['invalid', errorCode.invalidArgument],
      ['unsupported', errorCode.operationUnsupported],
      ['failed', errorCode.internal],
      ['system', errorCode.system],
    ] as const) {
      host.backend.fault = new AdminError(fault, 'the sentence');
      const error = await client.refused(number.serverUpdateTlsFiles, (writer) =>
        writer.string(own).unsigned(0),
      );
      expect(error.code).to.equal(code);
      expect(error.message).to.contain('the sentence');
    }
  });

  it('timeout, shutdown and disconnection are passed on', async () => {
    await ask('connectSetDaemonTimeout', (writer) => writer.unsigned(0xffffffff).unsigned(0));
    await ask('clientClose', (writer) => nameClient(writer, own, 5).unsigned(0));
    await ask('connectDaemonShutdown', (writer) => writer.unsigned(0));
    expect(host.backend.said).to.deep.equal(['timeout 4294967295', 'close 5', 'shut down']);
  });

  it('what is no call of the program is answered as libvirtd does', async () => {
    const answers: [Promise<ReceivedFrame>, string][] = [
      [client.call(21, undefined, header), 'unknown procedure: 21'],
      [client.call(0, undefined, header), 'unknown procedure: 0'],
      [
        client.call(3, undefined, { ...header, version: 2 }),
        'Cannot find program 110102160 version 2',
      ],
      [client.call(66), 'Cannot find program 536903814 version 1'],
      [client.call(3, undefined, { ...header, status: 1 }), 'Unexpected message status 1'],
    ];
    for (const [reply, message] of answers) {
      expect(readError(await reply)).to.include({
        code: errorCode.rpc,
        domain: errorDomain.rpc,
        message,
      });
    }
  });
});

const header = { program: program.admin };

const shape = (parameters: readonly TypedParameter[]): string[] =>
  parameters.map(({ field, type }) => `${field}: ${type}`);

function encodeCallOf(
  procedure: number,
  serial: number,
  write: (writer: XdrWriter) => void,
): Buffer {
  const writer = new XdrWriter();
  write(writer);
  return frameOf({ ...header, procedure, serial }, Buffer.from(writer.unsigned(0).finish()));
}
