import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Semaphore } from '../../../src/pull/semaphore.js';

/** Lets everything that can go on do so. */
const resolveOptions = () => new Promise((resolve) => setImmediate(resolve));

/** Actions that take a turn each, and end when they are told to. */
function start(turns: Semaphore, count: number) {
  const started: number[] = [];
  const ends: Array<{ done: (value: string) => void; fail: (error: Error) => void }> = [];
  const results = Array.from({ length: count }, (_, i) =>
    turns.take(() => {
      started.push(i);
      return new Promise<string>((done, fail) => {
        ends[i] = { done, fail };
      });
    }),
  );
  return { started, ends, results };
}

test('no more than so many run at a time, in the order in which they asked', async () => {
  const { started, ends } = start(new Semaphore(2), 5);
  await resolveOptions();
  assert.deepEqual(started, [0, 1]);
  ends[1]!.done('');
  await resolveOptions();
  assert.deepEqual(started, [0, 1, 2]);
  ends[2]!.done('');
  ends[0]!.done('');
  await resolveOptions();
  assert.deepEqual(started, [0, 1, 2, 3, 4]);
});

test('the result is that of the action', async () => {
  const { ends, results } = start(new Semaphore(1), 2);
  await resolveOptions();
  ends[0]!.done('one');
  assert.equal(await results[0], 'one');
  await resolveOptions();
  ends[1]!.done('two');
  assert.equal(await results[1], 'two');
});

test('a turn ends with a failure, too', async () => {
  const { started, ends, results } = start(new Semaphore(1), 2);
  await resolveOptions();
  ends[0]!.fail(new Error('no'));
  await assert.rejects(results[0]!, /no/);
  await resolveOptions();
  assert.deepEqual(started, [0, 1]);
});

test('an action that throws at once fails, and gives its turn back', async () => {
  const turns = new Semaphore(1);
  const thrown = turns.take(() => {
    throw new Error('at once');
  });
  await assert.rejects(thrown, /at once/);
  assert.equal(await turns.take(async () => 7), 7);
});

test('turns that nobody waited for are there for those who come later', async () => {
  const turns = new Semaphore(2);
  await Promise.all([turns.take(async () => 1), turns.take(async () => 2)]);
  const { started } = start(turns, 3);
  await resolveOptions();
  assert.deepEqual(started, [0, 1]);
});

test('who comes while a turn is handed over does not take it from who waited', async () => {
  const turns = new Semaphore(1);
  const { started, ends } = start(turns, 2);
  await resolveOptions();
  ends[0]!.done('');
  let late = false;
  void turns.take(async () => {
    late = true;
  });
  await resolveOptions();
  assert.deepEqual([started, late], [[0, 1], false]);
});
