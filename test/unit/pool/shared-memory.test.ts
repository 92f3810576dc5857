import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CounterReader,
  count,
  createCounters,
  createRateLimit,
  draw,
} from '../../../src/pool/shared-memory.js';

test('a reader sees growth exactly, across the wrap at 4 GiB', () => {
  const counters = createCounters();
  const reader = new CounterReader(counters, 'received');
  let expected = 0;
  for (let i = 0; i < 12; i++) {
    count(counters, 'received', 1_000_000_007);
    expected += 1_000_000_007;
    assert.equal(reader.drain(), 1_000_000_007);
  }
  assert.equal(reader.drain(), 0);
  assert.equal(reader.total(), expected);
});

test('counters do not disturb each other', () => {
  const counters = createCounters();
  count(counters, 'written', 5);
  count(counters, 'verified', 7);
  assert.equal(new CounterReader(counters, 'received').total(), 0);
  assert.equal(new CounterReader(counters, 'written').total(), 5);
  assert.equal(new CounterReader(counters, 'verified').total(), 7);
});

const SECOND_NS = 1_000_000_000n;
const START_NS = 5n * SECOND_NS;

test('a draw waits until all earlier draws are paid for', () => {
  const limit = createRateLimit(1000, START_NS);
  assert.equal(draw(limit, 500, START_NS), 500);
  assert.equal(draw(limit, 500, START_NS), 1000);
  assert.equal(draw(limit, 100, START_NS + SECOND_NS), 100);
  assert.equal(limit.paidUntil[0], START_NS + SECOND_NS + SECOND_NS / 10n);
});

test('unused time counts up to a second', () => {
  const limit = createRateLimit(1000, START_NS);
  const later = START_NS + 100n * SECOND_NS;
  assert.equal(draw(limit, 1000, later), 0);
  assert.equal(draw(limit, 100, later), 100);
});

test('over a long time exactly the limit is received, however large the draws', () => {
  const limit = createRateLimit(3_000_000, START_NS);
  let now = START_NS;
  let drawn = 0;
  for (let i = 0; i < 1000; i++) {
    const bytes = (i * 7919) % 65_536;
    drawn += bytes;
    now += BigInt(Math.round(draw(limit, bytes, now) * 1e6));
  }
  const seconds = Number(now - START_NS) / 1e9;
  assert.ok(Math.abs(drawn / seconds / 3_000_000 - 1) < 0.001, `${drawn / seconds} bytes a second`);
});
