import { expect } from 'chai';
import { createConnection, type Socket } from 'node:net';
import { Logger, LogThreshold } from '../../lib/logging/logger.js';
import { HttpServer, text } from '../../lib/metrics/http-server.js';
import { Listener, type ListenerSettings } from '../../lib/primary/listeners/listener.js';
import { freePorts } from '../peers/ports.js';
import { ask } from '../peers/scrape.js';
import { until } from '../peers/waiting.js';

/** Milliseconds that a connection may last here. */
const patience = 400;

/** Resolves when a connection is closed, be it with an error. */
const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => socket.once('close', () => resolve()));

describe('HTTP server for metrics', () => {
  let listener: Listener;
  let http: HttpServer;
  let port: number;
  let accepted: number;
  const lines: string[] = [];
  const clients: Socket[] = [];
  const big = 'x'.repeat(32 * 1024 * 1024);

  beforeEach(async () => {
    accepted = 0;
    lines.length = 0;
    const log = new Logger('metrics', new LogThreshold({ level: 1, filters: [] }), (record) =>
      lines.push(record.message),
    );
    const fail = (): never => {
      throw new Error('out of order');
    };
    http = new HttpServer(
      { '/page': () => text(200, 'here'), '/big': () => text(200, big), '/fails': fail },
      log,
      patience,
    );
    [port = 0] = await freePorts(1);
    const settings: ListenerSettings = {
      role: 'metrics',
      isActivated: false,
      transport: 'tcp',
      auth: 'none',
      readOnly: true,
      name: `127.0.0.1:${port}`,
      backlog: 1024,
    };
    listener = Listener.onAddress(settings, '127.0.0.1', port);
    listener.accept({
      onConnection: (_, connection) => {
        accepted++;
        http.connected(connection.fd);
      },
      onAcceptError: (_, error) => {
        throw error;
      },
    });
  });

  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
    http.close();
    listener.close();
  });

  const connect = (): Socket => {
    const socket = createConnection({ host: '127.0.0.1', port }).on('error', () => undefined);
    clients.push(socket);
    return socket;
  };

  /** All that comes back until the server closes. */
  const say = async (request: string): Promise<string> => {
    const socket = connect();
    let said = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => (said += chunk));
    socket.write(request);
    await closed(socket);
    return said;
  };

  const isServed = async (): Promise<void> => {
    expect((await ask({ port }, '/page')).body).to.equal('here\n');
  };

  it('answers one request a connection, with headers that keep browsers strict', async () => {
    const { status, headers, body } = await ask({ port }, '/page?query=1');
    expect(status).to.equal(200);
    expect(body).to.equal('here\n');
    expect(headers).to.include({
      connection: 'close',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'content-length': '5',
    });
    expect(headers).to.not.have.any.keys('server', 'x-powered-by', 'access-control-allow-origin');
    const twice = await say('GET /page HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(2));
    expect(twice.match(/HTTP\/1.1 200/g)).to.have.length(1);
  });

  it('answers none but the first of a thousand requests in one packet', async () => {
    const request = 'GET /page HTTP/1.1\r\nHost: x\r\n\r\n';
    const answers = (await say(request.repeat(1000))).split('HTTP/1.1 ').length - 1;
    expect(answers).to.equal(1);
  });

  it('answers HEAD without a body', async () => {
    const { status, headers, body } = await ask({ port }, '/page', 'HEAD');
    expect([status, headers['content-length'], body]).to.deep.equal([200, '5', '']);
  });

  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH']) {
    it(`refuses ${method}`, async () => {
      const { status, headers } = await ask({ port }, '/page', method);
      expect([status, headers.allow]).to.deep.equal([405, 'GET, HEAD']);
    });
  }

  for (const path of ['/', '/pages', '/page/', '//page', '/../page', '/__proto__', '/toString']) {
    it(`has no ${path}`, async () => {
      expect((await ask({ port }, path)).status).to.equal(404);
    });
  }

  it('tells no stranger why it failed, but the log', async () => {
    const { status, body } = await ask({ port }, '/fails');
    expect(status).to.equal(500);
    expect(body).to.not.contain('out of order');
    expect(lines.join()).to.contain('out of order');
  });

  const malformed: Record<string, string> = {
    'headers that are too long': `GET /page HTTP/1.1\r\nX: ${'x'.repeat(9000)}\r\n\r\n`,
    'a path that is too long': `GET /${'p'.repeat(9000)} HTTP/1.1\r\n\r\n`,
    'what is no HTTP': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
    'a frame of libvirt':
      '\0\0\0\x1c\x20\x00\x80\x86\0\0\0\x01\0\0\0\x42\0\0\0\0\0\0\0\x01\0\0\0\0',
    'two lengths': 'POST /page HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
  };
  for (const [what, request] of Object.entries(malformed)) {
    it(`ends a connection with ${what}`, async () => {
      expect(await say(request)).to.match(/^(HTTP\/1.1 4\d\d [^]*)?$/);
      await isServed();
    });
  }

  it('ends connections that send nothing, half a request, or a body without an end', async () => {
    const started = performance.now();
    const said = await Promise.all(
      [
        '',
        'GET /page HT',
        'GET /page HTTP/1.1\r\nHost: x\r\nX-Slow',
        'POST /page HTTP/1.1\r\nContent-Length: 9999\r\n\r\nx',
      ].map(say),
    );
    expect(performance.now() - started).to.be.below(20 * patience);
    expect(said.slice(0, 3)).to.deep.equal(['', '', '']);
  });

  it('ends a connection whose bytes come one by one', async () => {
    const socket = connect();
    const timer = setInterval(() => socket.write('x'), patience / 20);
    await closed(socket);
    clearInterval(timer);
  });

  it('keeps nobody waiting for a client that does not read', async () => {
    const deaf = connect();
    deaf.pause();
    deaf.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(() => accepted === 1, { what: 'the deaf client to be accepted' });
    await isServed();
    await until(() => deaf.destroyed || deaf.resume().readableEnded, { what: 'its end' });
  });

  it('closes the oldest connection for a new one when there are too many', async () => {
    const first = connect();
    const end = closed(first);
    await until(() => accepted === 1, { what: 'the first to be accepted' });
    for (let each = 0; each < 64; each++) connect();
    await end;
    await isServed();
    expect(lines.join()).to.contain('64 connections for metrics are open');
  });
});
