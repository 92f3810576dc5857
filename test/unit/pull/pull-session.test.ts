import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullSession } from '../../../src/pull/pull-session.js';
import { bookWait, Concurrency } from '../../../src/registry/backoff.js';
import { startServer } from '../../support/scripted-server.js';

test('waits of workers count for the main thread, too', async (t) => {
  const server = await startServer((_request, response, nth) => {
    response.writeHead(nth === 1 ? 429 : 404, { 'retry-after': '1' }).end();
  });
  t.after(() => server.close());
  const session = await PullSession.open(`${server.host}/x:1`, { store: '/nowhere' }, 'interrupted');
  t.after(() => session.close());
  const { waits } = await session.network();
  const longAgoMs = Date.now() - 1_000_000;
  for (let nth = 0; nth < 5; nth++)
    bookWait(waits, { host: 'example.com', waitMs: 120_000 }, longAgoMs + nth * 120_000);
  await assert.rejects(session.registry.getManifest('1'), {
    code: 'network-hopeless',
    message: /after 10 min/,
  });
  assert.equal((await session.network()).waits, waits);
});

test('requests in flight of threads that were ended do not limit later threads', async (t) => {
  const server = await startServer((_request, response) => response.writeHead(404).end());
  t.after(() => server.close());
  const options = { store: '/nowhere', connections: 1 };
  const session = await PullSession.open(`${server.host}/x:1`, options, 'interrupted');
  t.after(() => session.close());
  const load = async () => new Concurrency((await session.network()).limits);
  const ended = await load();
  ended.enter();
  ended.enter();
  const now = await load();
  assert.deepEqual([ended.isCrowded, now.isFull], [true, false]);
});
