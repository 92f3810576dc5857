import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { Stop } from '../../../src/pull/pull-context.js';
import { heapUsedBytes } from '../../support/heap.js';

const FIRST = new PullError('network-hopeless', 'the first reason');
const SECOND = new PullError('internal', 'what followed from it');

test('the first reason is kept, whatever fails afterwards', async () => {
  const stop = new Stop();
  assert.equal(stop.reason, undefined);
  stop.now(FIRST);
  stop.now(SECOND);
  assert.equal(stop.reason, FIRST);
  await assert.rejects(stop.guard(Promise.reject(SECOND)), FIRST);
});

test('a guarded promise that never settles ends with the reason', async () => {
  const stop = new Stop();
  const guarded = stop.guard(new Promise(() => {}));
  stop.now(FIRST);
  await assert.rejects(guarded, FIRST);
});

test('a guarded promise that fails because of the stop fails with the reason of the stop', async () => {
  const stop = new Stop();
  let fail: (error: Error) => void = () => {};
  const killed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  stop.onStop(() => fail(new Error('Terminating worker thread')));
  const guarded = stop.guard(killed);
  stop.now(FIRST);
  await assert.rejects(guarded, FIRST);
});

test('without a stop a guarded promise is itself', async () => {
  const stop = new Stop();
  assert.equal(await stop.guard(Promise.resolve(7)), 7);
  await assert.rejects(stop.guard(Promise.reject(SECOND)), SECOND);
});

test('an action for the stop runs once, or immediately after a stop', () => {
  const stop = new Stop();
  const done: string[] = [];
  stop.onStop(() => done.push('before'));
  stop.now(FIRST);
  stop.now(SECOND);
  stop.onStop(() => done.push('after'));
  assert.deepEqual(done, ['before', 'after']);
});

test('a stop without guarded promises is not an unhandled rejection', async () => {
  new Stop().now(FIRST);
  await new Promise(setImmediate);
});

test('an abort ends the pull with its reason, or with a message where the reason is not a PullError', () => {
  const reasons = [FIRST, new Error('enough')].map((reason) => {
    const controller = new AbortController();
    const stop = new Stop();
    stop.follow(controller.signal, 'it was interrupted');
    controller.abort(reason);
    return stop.reason;
  });
  assert.equal(reasons[0], FIRST);
  assert.deepEqual(
    [(reasons[1] as PullError).code, reasons[1]!.message],
    ['interrupted', 'it was interrupted'],
  );
});

test('an aborted signal stops at once, and one that is not followed any more never', () => {
  const early = new Stop();
  early.follow(AbortSignal.abort(FIRST), 'it was interrupted');
  assert.equal(early.reason, FIRST);
  const controller = new AbortController();
  const stop = new Stop();
  stop.follow(controller.signal, 'it was interrupted')();
  controller.abort(FIRST);
  assert.equal(stop.reason, undefined);
});

test('guarding 50,000 promises leaves nothing behind', async () => {
  const stop = new Stop();
  const pass = async (count: number) => {
    for (let i = 0; i < count; i++) {
      await stop.guard(Promise.resolve(i));
      await stop.guard(Promise.reject(SECOND)).catch(() => {});
    }
  };
  await pass(1000);
  const grownBytes: number[] = [];
  // Other tests of this process may leave something, but not each time.
  for (let i = 0; i < 3; i++) {
    const beforeBytes = heapUsedBytes();
    await pass(25_000);
    grownBytes.push(heapUsedBytes() - beforeBytes);
  }
  assert.ok(Math.min(...grownBytes) < 2 ** 20, `${grownBytes} bytes`);
  stop.now(FIRST);
});

test('after a stop a guarded promise ends with the reason, whatever it settles to', async () => {
  const stop = new Stop();
  stop.now(FIRST);
  for (const promise of [Promise.resolve(1), Promise.reject(SECOND), new Promise(() => {})]) {
    await assert.rejects(stop.guard(promise), FIRST);
  }
});
