import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { buildConnector, Client } from 'undici';
import { startServer } from '../../support/scripted-server.js';

const require = createRequire(import.meta.url);

const HINT =
  'src/registry/lanes.ts holds connections by the inside of undici: see there before this is changed';

test('undici is pinned to the exact version whose inside is known, and that is what is installed', () => {
  const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const installed = JSON.parse(readFileSync(require.resolve('undici/package.json'), 'utf8')) as {
    version: string;
  };
  assert.match(manifest.dependencies['undici'] ?? '', /^\d+\.\d+\.\d+$/, HINT);
  assert.equal(installed.version, manifest.dependencies['undici'], HINT);
});

test('undici reads a socket by read() alone: one that finds nothing stops it, and "readable" lets it go on', async (t) => {
  const body = Buffer.alloc(4 * 2 ** 20, 7);
  const server = await startServer((_request, response) => response.end(body));
  t.after(() => server.close());
  const connect = buildConnector({});
  const connected: Socket[] = [];
  let held = false;
  const client = new Client(server.origin, {
    connect: (target, callback) => {
      connect(target, (...[error, socket]) => {
        if (socket === null) return callback(error, null);
        const read = socket.read;
        socket.read = (sizeBytes?: number): unknown =>
          sizeBytes !== 0 && held ? null : read.call(socket, sizeBytes);
        connected.push(socket);
        return callback(null, socket);
      });
    },
  });
  t.after(() => client.destroy());
  let received = 0;
  const { promise: first, resolve: gotFirst } = deferred();
  const { promise: ended, resolve: end, reject } = deferred();
  client.dispatch(
    { path: '/', method: 'GET' },
    {
      onRequestStart() {},
      onResponseData(_controller, chunk) {
        received += chunk.length;
        held = true;
        gotFirst();
      },
      onResponseEnd: end,
      onResponseError: (_controller, error) => reject(error),
    },
  );
  await first;
  const [socket] = connected;
  assert.ok(socket !== undefined);
  assert.equal(socket.listenerCount('data'), 0, HINT);
  assert.ok(socket.listenerCount('readable') > 0, HINT);
  const before = received;
  while (socket.readableLength === 0) await once(socket, 'readable');
  // Turns in which undici could read what is there by another way.
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(received, before, HINT);
  let isOver = false;
  void ended.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    held = false;
    if (!socket.destroyed) socket.emit('readable');
    await new Promise((resolve) => setImmediate(resolve));
  }
  await ended;
  assert.equal(received, body.length, HINT);
});

function deferred() {
  let resolve = (): void => {};
  let reject = (_error: unknown): void => {};
  const promise = new Promise<void>((...settle) => {
    [resolve, reject] = settle;
  });
  return { promise, resolve, reject };
}
