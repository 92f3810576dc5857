import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { createConnections } from '../../../src/registry/connections.js';
import { transfer } from '../../../src/registry/transfer.js';
import { startServer } from '../../support/scripted-server.js';

const HINT =
  'src/registry/connections.ts holds connections by the inside of undici: see there before its version is changed';

function field(path: string, ...keys: string[]): unknown {
  let value: unknown = JSON.parse(readFileSync(path, 'utf8'));
  for (const key of keys) value = (value as Record<string, unknown>)[key];
  return value;
}

test('undici has the exact version whose inside is known', () => {
  const wanted = field('package.json', 'dependencies', 'undici');
  assert.match(String(wanted), /^\d+\.\d+\.\d+$/, HINT);
  assert.equal(field('node_modules/undici/package.json', 'version'), wanted, HINT);
});

/** Semaphore of the event loop in which a connection that is not held brings megabytes. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('undici reads nothing of a connection while that is held, and goes on when it is released', async (t) => {
  const body = Buffer.alloc(4 * 2 ** 20, 7);
  const server = await startServer((_request, response) => response.end(body));
  t.after(() => server.close());
  const transport = { host: server.host, tlsVerify: true, environment: {} };
  const connections = createConnections({ connections: 1, connectTimeoutMs: 5000, transport });
  t.after(() => connections.close());
  const connection = await connections.take(server.origin);
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
          connection.hold();
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
    connection.release();
  }
  await ended;
  assert.equal(received, body.length, HINT);
});

test('what waits in a connection whose request was aborted is not read any more', async (t) => {
  const body = Buffer.alloc(2 ** 20);
  const server = await startServer((_request, response) => response.end(body));
  t.after(() => server.close());
  const transport = { host: server.host, tlsVerify: true, environment: {} };
  const connections = createConnections({ connections: 1, connectTimeoutMs: 5000, transport });
  t.after(() => connections.close());
  const connection = await connections.take(server.origin);
  const failure = new Error('the disk is full');
  const emit = t.mock.method(Socket.prototype, 'emit').mock;
  const request = { path: '/', headers: {}, idleTimeoutMs: 60_000, answerTimeoutMs: 60_000 };
  const done = transfer(connection, request, {
    begin: () => ({ skipBytes: 0, takeBytes: body.length, exact: true }),
    received() {},
    async take() {
      await turns(10);
      emit.resetCalls();
      throw failure;
    },
  });
  await assert.rejects(done, failure);
  const woken = emit.calls.filter(({ arguments: [event] }) => String(event) === 'readable');
  assert.equal(woken.length, 0);
});
