import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { BroadcastChannel, Worker } from 'node:worker_threads';
import type { MainMessage, WorkerSetup } from '../../../../src/pool/messages.js';
import { createCounters } from '../../../../src/pool/shared-memory.js';
import { networkSetup } from '../../../support/network.js';
import { temporaryDirectory } from '../../../support/temporary.js';

type Message =
  | { readonly event: 'authorization'; readonly endpoint: number; readonly stale: string }
  | { readonly settled: readonly [refused: string | null, outcome: string] };

const NEVER = Number.POSITIVE_INFINITY;

/** A thread that runs a script of test/support, and the main thread's end of its channel. */
function startWorker(t: TestContext, script: URL, network: Parameters<typeof networkSetup>[0] = {}) {
  const channel = `test-${randomUUID()}`;
  const workerData: WorkerSetup = {
    storeRoot: temporaryDirectory(t),
    counters: createCounters(),
    network: networkSetup({ channel, ...network }),
  };
  const thread = new Worker(script, { workerData });
  const main = new BroadcastChannel(channel);
  t.after(async () => {
    main.close();
    await thread.terminate();
  });
  return { thread, answer: (message: MainMessage) => main.postMessage(message) };
}

/** A thread that holds the value `one`, and its messages in order. */
function startThread(t: TestContext, expiresAtMs = NEVER) {
  const authorization = { value: 'one', expiresAtMs };
  const { thread, answer } = startWorker(
    t,
    new URL('../../../support/authorization-thread.js', import.meta.url),
    { authorization },
  );
  const messages: Message[] = [];
  let wake = (): void => {};
  thread.on('message', (message: Message) => {
    messages.push(message);
    wake();
  });
  /** Resolves after this number of messages. */
  const come = async (count: number): Promise<readonly Message[]> => {
    while (messages.length < count) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return messages;
  };
  return { ask: (refused: string | null) => thread.postMessage(refused), answer, messages, come };
}

/** The answer of the main thread, with a new value for the refused one. */
function value(stale: string, value: string): MainMessage {
  return {
    message: 'authorization',
    endpoint: 0,
    stale,
    value,
    expiresAtMs: NEVER,
    origin: 'http://127.0.0.1',
  };
}

const FAILURE = { code: 'unauthorized', message: 'no', hint: 'log in' } as const;

test('a new value is requested once for all requests that were refused the same one', async (t) => {
  const { ask, answer, come } = startThread(t);
  for (let i = 0; i < 3; i++) ask('one');
  assert.deepEqual(await come(1), [{ event: 'authorization', endpoint: 0, stale: 'one' }]);
  answer(value('one', 'two'));
  const settled = { settled: ['one', 'two'] };
  assert.deepEqual((await come(4)).slice(1), [settled, settled, settled]);
  // Later requests with the old value get the new one.
  ask('one');
  ask(null);
  assert.deepEqual((await come(6)).slice(4), [settled, { settled: [null, 'two'] }]);
});

test('the answer for one refused value does not resolve requests that wait for another', async (t) => {
  const { ask, answer, come, messages } = startThread(t);
  ask('one');
  await come(1);
  // Another worker had been refused an older value.
  answer(value('zero', 'two'));
  while (!messages.some((message) => 'settled' in message && message.settled[1] === 'two')) {
    const known = messages.length;
    ask(null);
    await come(known + 1);
  }
  const before = messages.length;
  ask('two');
  assert.deepEqual((await come(before + 1)).at(-1), { event: 'authorization', endpoint: 0, stale: 'two' });
  answer({ message: 'authorization-failed', endpoint: 0, stale: 'one', failure: FAILURE });
  answer(value('two', 'three'));
  assert.deepEqual((await come(before + 3)).slice(-2), [
    { settled: ['one', 'failed: unauthorized'] },
    { settled: ['two', 'three'] },
  ]);
});

test('a value that is about to expire is replaced before it is used, once for all', async (t) => {
  const { ask, answer, come } = startThread(t, 0);
  for (let i = 0; i < 2; i++) ask(null);
  assert.deepEqual(await come(1), [{ event: 'authorization', endpoint: 0, stale: 'one' }]);
  answer(value('one', 'two'));
  const settled = { settled: [null, 'two'] };
  assert.deepEqual((await come(3)).slice(1), [settled, settled]);
  ask(null);
  assert.deepEqual((await come(4)).slice(3), [settled]);
});

const BLOB = 'http://registry/blob';
const OLD = 'http://storage/old';
const NEW = 'http://storage/new';

function startTargetsThread(t: TestContext) {
  const { thread, answer } = startWorker(t, new URL('../../../support/targets-thread.js', import.meta.url));
  const next = async (): Promise<unknown> => (await once(thread, 'message'))[0];
  const expire = () => thread.postMessage({ blobUrl: BLOB, target: OLD });
  return { id: thread.threadId, next, answer, expire };
}

test('an expired target is reported with the thread, which receives the target that another one found', async (t) => {
  const { id, next, answer, expire } = startTargetsThread(t);
  expire();
  assert.deepEqual(await next(), { event: 'target-expired', blobUrl: BLOB, target: OLD, thread: id });
  answer({ message: 'target', blobUrl: 'http://registry/other', target: OLD, thread: id });
  answer({ message: 'renew-target', blobUrl: BLOB, thread: id + 1 });
  answer({ message: 'target', blobUrl: BLOB, target: OLD, thread: id + 1 });
  answer({ message: 'target', blobUrl: BLOB, target: NEW, thread: id });
  assert.deepEqual(await next(), { settled: NEW });
});

test('the refused target is an answer if the registry redirects there again', async (t) => {
  const { id, next, answer, expire } = startTargetsThread(t);
  expire();
  await next();
  answer({ message: 'target', blobUrl: BLOB, target: OLD, thread: id });
  assert.deepEqual(await next(), { settled: OLD });
});

test('one thread is to request the target, and a failure to find one is an answer', async (t) => {
  const { id, next, answer, expire } = startTargetsThread(t);
  expire();
  await next();
  answer({ message: 'renew-target', blobUrl: BLOB, thread: id });
  assert.deepEqual(await next(), { settled: 'renew' });
  expire();
  await next();
  answer({ message: 'target', blobUrl: BLOB, target: undefined, thread: id });
  assert.deepEqual(await next(), { settled: null });
});
