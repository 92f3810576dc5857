import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Concurrency, createLimits } from '../../../src/registry/concurrency.js';

function create(most: number): Concurrency {
  return new Concurrency(createLimits(1, most));
}

function come(concurrency: Concurrency, spans: number): number {
  for (let i = 0; i < spans; i++) concurrency.good();
  return concurrency.limit;
}

test('who is told to wait asks half as much, and at least one at a time', () => {
  const concurrency = create(5);
  assert.equal(concurrency.limit, 5);
  const limits = [1, 2, 3].map((nth) => {
    assert.equal(concurrency.throttled(1000, nth * 10_000), true);
    return concurrency.limit;
  });
  assert.deepEqual(limits, [2, 1, 1]);
});

test('those told at the same time count once, until the wait is over and for a second at least', () => {
  const concurrency = create(16);
  concurrency.throttled(5000, 0);
  assert.equal(concurrency.throttled(5000, 4999), false);
  assert.deepEqual([concurrency.waitLeftMs(4999), concurrency.waitLeftMs(5000)], [1, 0]);
  assert.equal(concurrency.limit, 8);
  assert.equal(concurrency.throttled(0, 5000), true);
  assert.equal(concurrency.throttled(0, 5999), false);
  assert.equal(concurrency.limit, 4);
});

test('one more is asked each time that so many came well, up to the connections there are', () => {
  const concurrency = create(4);
  assert.equal(come(concurrency, 100), 4);
  concurrency.throttled(0, 0);
  assert.equal(come(concurrency, 1), 2);
  assert.equal(come(concurrency, 1), 3);
  assert.equal(come(concurrency, 2), 3);
  assert.equal(come(concurrency, 1), 4);
  assert.equal(come(concurrency, 100), 4);
});

test('all threads share what one was told, row by row', () => {
  const limits = createLimits(2, 8);
  const [one, other, neighbour] = [
    new Concurrency(limits, 0),
    new Concurrency(limits, 0),
    new Concurrency(limits, 1),
  ];
  assert.equal(one.throttled(1000, 0), true);
  assert.equal(other.throttled(1000, 999), false);
  for (let nth = 0; nth < 4; nth++) (nth % 2 === 0 ? one : other).good();
  assert.deepEqual([one.limit, other.limit, neighbour.limit], [5, 5, 8]);
  for (let nth = 0; nth < 5; nth++) (nth % 2 === 0 ? one : other).enter();
  assert.deepEqual([one.isFull, other.isFull, neighbour.isFull], [true, true, false]);
  assert.deepEqual([one.isCrowded, other.isCrowded], [false, false]);
  one.enter();
  assert.deepEqual([one.isCrowded, other.isCrowded], [true, true]);
  for (let nth = 0; nth < 2; nth++) one.leave();
  assert.deepEqual([one.isFull, other.isFull], [false, false]);
});
