import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { BroadcastChannel, Worker } from 'node:worker_threads';
import type { MainMessage, WorkerSetup } from '../../../../src/pool/messages.js';
import { createCounters } from '../../../../src/pool/shared-memory.js';
import { networkSetup } from '../../../support/network.js';
import { temporaryDirectory } from '../../../support/temporary.js';

const BLOB = 'http://registry/blob';
const OLD = 'http://storage/old';
const NEW = 'http://storage/new';

function startThread(t: TestContext) {
  const channel = `test-${randomUUID()}`;
  const network = networkSetup({ channel });
  const workerData: WorkerSetup = {
    storeRoot: temporaryDirectory(t),
    counters: createCounters(),
    network,
  };
  const thread = new Worker(new URL('../../../support/targets-thread.js', import.meta.url), { workerData });
  const main = new BroadcastChannel(channel);
  t.after(async () => {
    main.close();
    await thread.terminate();
  });
  const next = async (): Promise<unknown> => (await once(thread, 'message'))[0];
  const answer = (message: MainMessage) => main.postMessage(message);
  const expire = () => thread.postMessage({ blobUrl: BLOB, target: OLD });
  return { id: thread.threadId, next, answer, expire };
}

test('an expired target is told with the thread, which takes what another one found', async (t) => {
  const { id, next, answer, expire } = startThread(t);
  expire();
  assert.deepEqual(await next(), { event: 'target-expired', blobUrl: BLOB, target: OLD, thread: id });
  answer({ message: 'target', blobUrl: 'http://registry/other', target: OLD, thread: id });
  answer({ message: 'renew-target', blobUrl: BLOB, thread: id + 1 });
  answer({ message: 'target', blobUrl: BLOB, target: OLD, thread: id + 1 });
  answer({ message: 'target', blobUrl: BLOB, target: NEW, thread: id });
  assert.deepEqual(await next(), { settled: NEW });
});

test('a registry that names the refused target again is an answer', async (t) => {
  const { id, next, answer, expire } = startThread(t);
  expire();
  await next();
  answer({ message: 'target', blobUrl: BLOB, target: OLD, thread: id });
  assert.deepEqual(await next(), { settled: OLD });
});

test('leave to ask is for one thread, and asking in vain is told', async (t) => {
  const { id, next, answer, expire } = startThread(t);
  expire();
  await next();
  answer({ message: 'renew-target', blobUrl: BLOB, thread: id });
  assert.deepEqual(await next(), { settled: 'renew' });
  expire();
  await next();
  answer({ message: 'target', blobUrl: BLOB, target: undefined, thread: id });
  assert.deepEqual(await next(), { settled: null });
});
