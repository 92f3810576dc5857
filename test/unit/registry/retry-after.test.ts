import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { createWaitBudget, parseRetryAfter } from '../../../src/registry/retry-after.js';

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5);

test('seconds and dates become milliseconds from now, one second at least', () => {
  assert.equal(parseRetryAfter('7', NOW_MS), 7000);
  assert.equal(parseRetryAfter('0', NOW_MS), 1000);
  assert.equal(parseRetryAfter('Fri, 02 Jan 2026 03:05:05 GMT', NOW_MS), 60_000);
  assert.equal(parseRetryAfter('Fri, 02 Jan 2026 03:00:00 GMT', NOW_MS), 1000);
});

test('what is neither is undefined', () => {
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

function isTooLong(error: unknown): boolean {
  return (
    error instanceof PullError && error.code === 'network-hopeless' && error.message.includes('example.com')
  );
}

test('a wait of two minutes is obeyed, a longer one is not', () => {
  createWaitBudget().book(120_000, NOW_MS, 'example.com');
  assert.throws(() => createWaitBudget().book(120_001, NOW_MS, 'example.com'), isTooLong);
});

test('waits add up to ten minutes at most', () => {
  const budget = createWaitBudget();
  for (let nth = 0; nth < 5; nth++) budget.book(120_000, NOW_MS + nth * 200_000, 'example.com');
  assert.throws(() => budget.book(1000, NOW_MS + 1_000_000, 'example.com'), isTooLong);
});

test('waits at the same time count once', () => {
  const budget = createWaitBudget();
  for (let nth = 0; nth < 100; nth++) budget.book(100_000, NOW_MS + nth, 'example.com');
  for (let nth = 1; nth < 5; nth++) budget.book(120_000, NOW_MS + nth * 200_000, 'example.com');
  assert.throws(() => budget.book(30_000, NOW_MS + 2_000_000, 'example.com'), isTooLong);
});
