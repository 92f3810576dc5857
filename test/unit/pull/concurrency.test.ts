import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Concurrency } from '../../../src/pull/concurrency.js';

function create(most: number) {
  const clock = { now: 0 };
  return { clock, concurrency: new Concurrency(most, () => clock.now) };
}

function come(concurrency: Concurrency, spans: number): number {
  for (let i = 0; i < spans; i++) concurrency.good();
  return concurrency.limit;
}

test('who is told to wait asks half as much, and at least one at a time', () => {
  const { clock, concurrency } = create(5);
  assert.equal(concurrency.limit, 5);
  const limits = [2, 1, 1].map(() => {
    clock.now += 10_000;
    assert.equal(concurrency.throttled(1000), true);
    return concurrency.limit;
  });
  assert.deepEqual(limits, [2, 1, 1]);
});

test('those told at the same time count once, until the wait is over and for a second at least', () => {
  const { clock, concurrency } = create(16);
  concurrency.throttled(5000);
  clock.now = 4999;
  assert.equal(concurrency.throttled(5000), false);
  assert.equal(concurrency.limit, 8);
  clock.now = 5000;
  assert.equal(concurrency.throttled(0), true);
  clock.now = 5999;
  assert.equal(concurrency.throttled(0), false);
  assert.equal(concurrency.limit, 4);
});

test('one more is asked each time that so many came well, up to the connections there are', () => {
  const { concurrency } = create(4);
  assert.equal(come(concurrency, 100), 4);
  concurrency.throttled(0);
  assert.equal(come(concurrency, 1), 2);
  assert.equal(come(concurrency, 1), 3);
  assert.equal(come(concurrency, 2), 3);
  assert.equal(come(concurrency, 1), 4);
  assert.equal(come(concurrency, 100), 4);
});
