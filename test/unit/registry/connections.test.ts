import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConnections } from '../../../src/registry/connections.js';
import type { ResponseHeaders } from '../../../src/registry/headers.js';
import { transfer } from '../../../src/registry/transfer.js';
import { noise } from '../../support/layout.js';
import { startServer } from '../../support/scripted-server.js';

const HINT =
  'src/registry/connections.ts holds connections by the inside of undici: see there before its version is changed';

function field(path: string, ...keys: string[]): unknown {
  let value: unknown = JSON.parse(readFileSync(path, 'utf8'));
  for (const key of keys) value = (value as Record<string, unknown>)[key];
  return value;
}

test('undici has the exact version whose internals this relies on', () => {
  const wanted = field('package.json', 'dependencies', 'undici');
  assert.match(String(wanted), /^\d+\.\d+\.\d+$/, HINT);
  assert.equal(field('node_modules/undici/package.json', 'version'), wanted, HINT);
});

/** Turns of the event loop in which a connection that is not paused delivers megabytes. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('undici reads nothing from a paused connection, and continues when it resumes', async (t) => {
  const body = Buffer.alloc(4 * 2 ** 20, 7);
  const server = await startServer((_request, response) => response.end(body));
  t.after(() => server.close());
  const transport = { host: server.host, tlsVerify: true, environment: {} };
  const connections = createConnections({ connections: 1, connectTimeoutMs: 5000, transport });
  t.after(() => connections.close());
  const connection = await connections.acquire(server.origin);
  let received = 0;
  let isOver = false;
  let begun = (): void => {};
  const first = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const ended = new Promise<void>((resolve, reject) => {
    connection.client.dispatch(
      { path: '/', method: 'GET' },
      {
        onRequestStart() {},
        onResponseData(_controller, chunk) {
          received += chunk.length;
          connection.pause();
          begun();
        },
        onResponseEnd: () => resolve(),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  }).finally(() => {
    isOver = true;
  });
  await first;
  const before = received;
  await turns(200);
  assert.equal(received, before, HINT);
  for (let released = received; !isOver; await turns(1)) {
    // Each release lets it read until the next chunk has it held again.
    assert.ok(received - released <= 2 * 65_536, HINT);
    released = received;
    connection.resume();
  }
  await ended;
  assert.equal(received, body.length, HINT);
});

test('bytes buffered in a connection whose request was aborted are not read', async (t) => {
  const body = Buffer.alloc(2 ** 20);
  const server = await startServer((_request, response) => response.end(body));
  t.after(() => server.close());
  const transport = { host: server.host, tlsVerify: true, environment: {} };
  const connections = createConnections({ connections: 1, connectTimeoutMs: 5000, transport });
  t.after(() => connections.close());
  const connection = await connections.acquire(server.origin);
  const failure = new Error('the disk is full');
  const emit = t.mock.method(Socket.prototype, 'emit').mock;
  const request = { path: '/', headers: {}, idleTimeoutMs: 60_000, answerTimeoutMs: 60_000 };
  const done = transfer(connection, request, {
    head: () => ({ skipBytes: 0, lengthBytes: body.length, isExact: true }),
    received() {},
    async consume() {
      await turns(10);
      emit.resetCalls();
      throw failure;
    },
  });
  await assert.rejects(done, failure);
  const woken = emit.calls.filter(({ arguments: [event] }) => String(event) === 'readable');
  assert.equal(woken.length, 0);
});

const BODY = noise(3, 3 * 2 ** 20);
const LONG_VALUE = 'x'.repeat(2000);

/** A server whose connections are written to by `answer` at each request. */
async function serve(t: TestContext, answer: (socket: Socket) => Promise<void>) {
  let sockets = 0;
  const server = createServer((socket) => {
    sockets++;
    socket.on('error', () => {});
    socket.on('data', () => void answer(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const transport = { host: `127.0.0.1:${port}`, tlsVerify: true, environment: {} };
  const connections = createConnections({
    connections: 1,
    connectTimeoutMs: 60_000,
    transport,
    reusesBuffers: true,
  });
  t.after(() => connections.close());
  const connection = await connections.acquire(`http://127.0.0.1:${port}`);
  return { connection, sockets: () => sockets };
}

/** A head in two parts that do not come together. */
async function sendHead(socket: Socket, fields: string): Promise<void> {
  const head = `HTTP/1.1 200 OK\r\nX-Long: ${LONG_VALUE}\r\n${fields}\r\n\r\n`;
  socket.write(head.slice(0, 1000));
  await sleep(20);
  socket.write(head.slice(1000));
}

/** Asks once. `pause`: whether the connection is held after this chunk. */
async function ask(
  { connection }: Awaited<ReturnType<typeof serve>>,
  pause: (chunk: number) => boolean,
): Promise<{ kind: string; digest: string; headers: ResponseHeaders; memory: Set<ArrayBufferLike> }> {
  const hash = createHash('sha256');
  const memory = new Set<ArrayBufferLike>();
  let headers: ResponseHeaders = {};
  let chunks = 0;
  const timeouts = { idleTimeoutMs: 60_000, answerTimeoutMs: 60_000 };
  const { kind } = await transfer(
    connection,
    { path: '/', headers: {}, ...timeouts },
    {
      head: (_status, all) => {
        headers = all;
        return { skipBytes: 0, lengthBytes: BODY.length, isExact: true };
      },
      received() {},
      consume(chunk) {
        hash.update(chunk);
        memory.add(chunk.buffer);
        chunks++;
        return pause(chunks) ? sleep(1) : undefined;
      },
    },
  );
  return { kind, digest: hash.digest('hex'), headers, memory };
}

const WANTED = createHash('sha256').update(BODY).digest('hex');

test('a connection with one read buffer delivers partial heads and bodies intact, paused or not', async (t) => {
  const server = await serve(t, async (socket) => {
    await sendHead(socket, `Content-Length: ${BODY.length}`);
    socket.write(BODY);
  });
  for (const pause of [() => false, () => true, (chunk: number) => chunk % 3 === 0]) {
    const answer = await ask(server, pause);
    assert.deepEqual([answer.kind, answer.digest], ['complete', WANTED]);
    assert.equal(answer.headers['x-long'], LONG_VALUE);
    assert.equal(answer.memory.size, 1);
  }
  assert.equal(server.sockets(), 1);
});

test('a chunked body with many chunks in one read stays intact while the connection is paused', async (t) => {
  const server = await serve(t, async (socket) => {
    await sendHead(socket, 'Transfer-Encoding: chunked');
    for (let at = 0; at < BODY.length; at += 10_000) {
      const part = BODY.subarray(at, at + 10_000);
      socket.write(
        Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')]),
      );
    }
    socket.write('0\r\n\r\n');
  });
  const answer = await ask(server, (chunk) => chunk % 5 === 0);
  assert.deepEqual([answer.kind, answer.digest], ['complete', WANTED]);
});

test('a body that ends early is broken, and the next connection works like the first', async (t) => {
  let requests = 0;
  const server = await serve(t, async (socket) => {
    requests++;
    await sendHead(socket, `Content-Length: ${BODY.length}`);
    if (requests === 1) socket.end(BODY.subarray(0, BODY.length / 2));
    else socket.write(BODY);
  });
  assert.equal((await ask(server, () => false)).kind, 'broken');
  const { kind, digest } = await ask(server, (chunk) => chunk === 2);
  assert.deepEqual([kind, digest], ['complete', WANTED]);
  assert.equal(server.sockets(), 2);
});
