import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CounterReader, count, createCounters } from '../../../src/pool/counters.js';

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
