import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import {
  bookWait,
  Concurrency,
  createLimits,
  createWaitBudget,
  type WaitBudget,
  waitAfter,
} from '../../../src/registry/backoff.js';
import { parseRetryAfter } from '../../../src/registry/headers.js';

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5);

test('seconds and dates become milliseconds from now, one second at least', () => {
  assert.equal(parseRetryAfter('7', NOW_MS), 7000);
  assert.equal(parseRetryAfter('0', NOW_MS), 1000);
  for (const many of [20, 400])
    assert.equal(parseRetryAfter('9'.repeat(many), NOW_MS), Number.MAX_SAFE_INTEGER);
  assert.equal(parseRetryAfter('Fri, 02 Jan 2026 03:05:05 GMT', NOW_MS), 60_000);
  assert.equal(parseRetryAfter('Fri, 02 Jan 2026 03:00:00 GMT', NOW_MS), 1000);
});

test('any other Retry-After is undefined', () => {
  for (const header of [
    undefined,
    '',
    '-1',
    '1.5',
    'soon',
    '2026-01-02T03:05:05Z',
    'Fri, 99 Jan 2026 03:05:05 GMT',
  ]) {
    assert.equal(parseRetryAfter(header, NOW_MS), undefined, header);
  }
});

test('a 429 without a time leads to a wait with full jitter, doubled in a row up to 32 seconds', () => {
  const told = { status: 429, retryAfter: undefined };
  const longest = [1, 2, 3, 6, 7, 2000].map((nth) => waitAfter(told, nth, NOW_MS, 1 - 2 ** -53));
  assert.deepEqual(longest, [1000, 2000, 4000, 32_000, 32_000, 32_000]);
  assert.equal(waitAfter(told, 3, NOW_MS, 0), 0);
  assert.equal(waitAfter(told, 3, NOW_MS, 0.5), 2000);
});

test('a stated time is obeyed without jitter, and a 503 without one does not ask to wait', () => {
  for (const status of [429, 503]) assert.equal(waitAfter({ status, retryAfter: '7' }, 9, NOW_MS, 0.9), 7000);
  assert.equal(waitAfter({ status: 503, retryAfter: undefined }, 1, NOW_MS, 0.9), undefined);
  assert.equal(waitAfter({ status: 500, retryAfter: '7' }, 1, NOW_MS, 0.9), undefined);
});

function book(budget: WaitBudget, waitMs: number, nowMs: number): void {
  bookWait(budget, { host: 'example.com', waitMs }, nowMs);
}

function isTooLong(error: unknown): boolean {
  return (
    error instanceof PullError && error.code === 'network-hopeless' && error.message.includes('example.com')
  );
}

test('a wait of two minutes is obeyed, a longer one is not', () => {
  book(createWaitBudget(), 120_000, NOW_MS);
  assert.throws(() => book(createWaitBudget(), 120_001, NOW_MS), isTooLong);
});

test('waits add up to ten minutes at most', () => {
  const budget = createWaitBudget();
  for (let nth = 0; nth < 5; nth++) book(budget, 120_000, NOW_MS + nth * 200_000);
  assert.throws(() => book(budget, 1000, NOW_MS + 1_000_000), isTooLong);
});

test('concurrent waits count once', () => {
  const budget = createWaitBudget();
  for (let nth = 0; nth < 100; nth++) book(budget, 100_000, NOW_MS + nth);
  for (let nth = 1; nth < 5; nth++) book(budget, 120_000, NOW_MS + nth * 200_000);
  assert.throws(() => book(budget, 30_000, NOW_MS + 2_000_000), isTooLong);
});

test('waits of several threads share one sum, and concurrent ones count once', () => {
  const one = createWaitBudget();
  const other: typeof one = new BigInt64Array(one.buffer);
  for (let nth = 0; nth < 4; nth++) {
    book(one, 120_000, NOW_MS + nth * 200_000);
    book(other, 120_000, NOW_MS + nth * 200_000 + 20_000);
  }
  // Four times 140 s.
  book(other, 40_000, NOW_MS + 1_000_000);
  assert.throws(() => book(one, 1000, NOW_MS + 2_000_000), isTooLong);
});

test('a refused wait is not booked', () => {
  const budget = createWaitBudget();
  for (let nth = 0; nth < 4; nth++) book(budget, 120_000, NOW_MS + nth * 200_000);
  book(budget, 100_000, NOW_MS + 800_000);
  assert.throws(() => book(budget, 60_000, NOW_MS + 1_000_000), isTooLong);
  book(budget, 20_000, NOW_MS + 1_000_000);
});

function create(most: number): Concurrency {
  return new Concurrency(createLimits(1, most));
}

function come(concurrency: Concurrency, spans: number): number {
  for (let i = 0; i < spans; i++) concurrency.good();
  return concurrency.limit;
}

test('a request to wait halves the limit, down to one', () => {
  const concurrency = create(5);
  assert.equal(concurrency.limit, 5);
  const limits = [1, 2, 3].map((nth) => {
    assert.equal(concurrency.throttled(1000, nth * 10_000), true);
    return concurrency.limit;
  });
  assert.deepEqual(limits, [2, 1, 1]);
});

test('a wave of requests to wait counts once, until the wait is over and for a second at least', () => {
  const concurrency = create(16);
  concurrency.throttled(5000, 0);
  assert.equal(concurrency.throttled(5000, 4999), false);
  assert.deepEqual([concurrency.waitLeftMs(4999), concurrency.waitLeftMs(5000)], [1, 0]);
  assert.equal(concurrency.limit, 8);
  assert.equal(concurrency.throttled(0, 5000), true);
  assert.equal(concurrency.throttled(0, 5999), false);
  assert.equal(concurrency.limit, 4);
});

test('the limit grows by one for as many successes as it allows, up to its maximum', () => {
  const concurrency = create(4);
  assert.equal(come(concurrency, 100), 4);
  concurrency.throttled(0, 0);
  assert.equal(come(concurrency, 1), 2);
  assert.equal(come(concurrency, 1), 3);
  assert.equal(come(concurrency, 2), 3);
  assert.equal(come(concurrency, 1), 4);
  assert.equal(come(concurrency, 100), 4);
});

test('all threads share the limits, row by row', () => {
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
