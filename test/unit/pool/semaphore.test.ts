import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Semaphore } from '../../../src/pool/semaphore.js';

/** Lets everything that can go on do so. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Actions that take a turn each, and end when they are told to. */
function start(turns: Semaphore, count: number) {
  const started: number[] = [];
  const ends: Array<{ done: (value: string) => void; fail: (error: Error) => void }> = [];
  const results = Array.from({ length: count }, (_, i) =>
    turns.with(1, () => {
      started.push(i);
      return new Promise<string>((done, fail) => {
        ends[i] = { done, fail };
      });
    }),
  );
  return { started, ends, results };
}

test('no more actions than permits run at a time, in the order of the calls', async () => {
  const { started, ends } = start(new Semaphore(2), 5);
  await settle();
  assert.deepEqual(started, [0, 1]);
  ends[1]!.done('');
  await settle();
  assert.deepEqual(started, [0, 1, 2]);
  ends[2]!.done('');
  ends[0]!.done('');
  await settle();
  assert.deepEqual(started, [0, 1, 2, 3, 4]);
});

test('the result is that of the action', async () => {
  const { ends, results } = start(new Semaphore(1), 2);
  await settle();
  ends[0]!.done('one');
  assert.equal(await results[0], 'one');
  await settle();
  ends[1]!.done('two');
  assert.equal(await results[1], 'two');
});

test('a permit is released by a failure, too', async () => {
  const { started, ends, results } = start(new Semaphore(1), 2);
  await settle();
  ends[0]!.fail(new Error('no'));
  await assert.rejects(results[0]!, /no/);
  await settle();
  assert.deepEqual(started, [0, 1]);
});

test('an action that throws at once fails, and its permit is released', async () => {
  const turns = new Semaphore(1);
  const thrown = turns.with(1, () => {
    throw new Error('at once');
  });
  await assert.rejects(thrown, /at once/);
  assert.equal(await turns.with(1, async () => 7), 7);
});

test('permits released with no one waiting can be acquired later', async () => {
  const turns = new Semaphore(2);
  await Promise.all([turns.with(1, async () => 1), turns.with(1, async () => 2)]);
  const { started } = start(turns, 3);
  await settle();
  assert.deepEqual(started, [0, 1]);
});

test('a later caller does not get a permit before one that waited', async () => {
  const turns = new Semaphore(1);
  const { started, ends } = start(turns, 2);
  await settle();
  ends[0]!.done('');
  let late = false;
  void turns.with(1, async () => {
    late = true;
  });
  await settle();
  assert.deepEqual([started, late], [[0, 1], false]);
});
