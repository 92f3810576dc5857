import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../../src/format/decoded-limits.js';
import { parseDigest } from '../../../src/format/digest.js';
import { acquireRoom, roomLeft } from '../../../src/pool/counters.js';
import { DecodedAllowance, Semaphore } from '../../../src/pull/budgets.js';
import type { MissingLayer } from '../../../src/pull/layer.js';
import { fakeLayer } from '../../support/fake-context.js';
import { tableOf } from '../../support/layer-tables.js';

/** Lets everything that can go on do so. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Actions that take a turn each, and end when they are told to. */
function start(turns: Semaphore, count: number) {
  const started: number[] = [];
  const ends: Array<{ done: (value: string) => void; fail: (error: Error) => void }> = [];
  const results = Array.from({ length: count }, (_, i) =>
    turns.with(() => {
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

test('a turn ends with a failure, too', async () => {
  const { started, ends, results } = start(new Semaphore(1), 2);
  await settle();
  ends[0]!.fail(new Error('no'));
  await assert.rejects(results[0]!, /no/);
  await settle();
  assert.deepEqual(started, [0, 1]);
});

test('an action that throws at once fails, and gives its turn back', async () => {
  const turns = new Semaphore(1);
  const thrown = turns.with(() => {
    throw new Error('at once');
  });
  await assert.rejects(thrown, /at once/);
  assert.equal(await turns.with(async () => 7), 7);
});

test('turns that nobody waited for are there for those who come later', async () => {
  const turns = new Semaphore(2);
  await Promise.all([turns.with(async () => 1), turns.with(async () => 2)]);
  const { started } = start(turns, 3);
  await settle();
  assert.deepEqual(started, [0, 1]);
});

test('who comes while a turn is handed over does not take it from who waited', async () => {
  const turns = new Semaphore(1);
  const { started, ends } = start(turns, 2);
  await settle();
  ends[0]!.done('');
  let late = false;
  void turns.with(async () => {
    late = true;
  });
  await settle();
  assert.deepEqual([started, late], [[0, 1], false]);
});

const GIB = 2 ** 30;

/** A layer with a blob of 1000 bytes. */
function layerOf(number: number): MissingLayer {
  return { ...fakeLayer(), diffId: parseDigest(`sha256:${String(number).padStart(64, '0')}`, 'DiffID') };
}

const RATIO_BYTES = 1000 * MAX_DECODED_RATIO;

/** What a layer may decode to beyond the ratio. */
function freeBytes(allowance: DecodedAllowance, layer: MissingLayer): number {
  const { room, takenBytes } = allowance.forOpaque(layer);
  return takenBytes + roomLeft(room);
}

/** A layer is decoded as one stream, up to so many bytes beyond the ratio. */
function decode(allowance: DecodedAllowance, layer: MissingLayer, bytes: number): boolean {
  const { room, takenBytes } = allowance.forOpaque(layer);
  const isTaken = acquireRoom(room, Math.max(0, bytes - takenBytes));
  if (isTaken) allowance.noteOpaque(layer, RATIO_BYTES + bytes);
  return isTaken;
}

test('a layer may have a sparse file of 10 GiB, and no 64 GiB of zeros', () => {
  const allowance = new DecodedAllowance();
  assert.equal(freeBytes(allowance, layerOf(1)), 10 * GIB);
  const bomb = tableOf([], 800, 64 * GIB);
  assert.throws(() => allowance.noteTable(layerOf(1), bomb), { code: 'metadata-malformed' });
  assert.ok(!decode(allowance, layerOf(1), 64 * GIB));
});

test('what layers decode to beyond the ratio is taken from what all of them have together', () => {
  const allowance = new DecodedAllowance();
  const [first, second, third] = [layerOf(1), layerOf(2), layerOf(3)];
  allowance.noteTable(first, tableOf([], 800, RATIO_BYTES));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES);
  assert.ok(decode(allowance, second, 5));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES - 5);
  assert.ok(decode(allowance, first, FREE_DECODED_BYTES - 5));
  assert.equal(freeBytes(allowance, third), 0);
});

test('a layer that is decoded once more, or as one stream after its table, counts once', () => {
  const allowance = new DecodedAllowance();
  const [layer, other] = [layerOf(1), layerOf(2)];
  allowance.noteTable(layer, tableOf([], 800, RATIO_BYTES + 5 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 5 * GIB);
  assert.ok(decode(allowance, layer, 6 * GIB));
  assert.ok(decode(allowance, layer, 3 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 6 * GIB);
});

test('a table that states more than that is malformed, and takes nothing', () => {
  const allowance = new DecodedAllowance();
  const most = RATIO_BYTES + FREE_DECODED_BYTES;
  const tooMuch = {
    code: 'metadata-malformed',
    message: new RegExp(`states ${most + 1} bytes for a blob of 1000`),
  };
  assert.throws(() => allowance.noteTable(layerOf(1), tableOf([], 800, most + 1)), tooMuch);
  allowance.noteTable(layerOf(1), tableOf([], 800, most));
  assert.equal(freeBytes(allowance, layerOf(2)), 0);
  allowance.noteTable(layerOf(2), tableOf([], 800, RATIO_BYTES));
});
