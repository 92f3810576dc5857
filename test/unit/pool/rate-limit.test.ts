import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRateLimit, draw } from '../../../src/pool/rate-limit.js';

const SECOND_NS = 1_000_000_000n;
const START_NS = 5n * SECOND_NS;

test('whoever draws waits until all that was drawn before is paid for', () => {
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

test('over a long time exactly the limit comes through, however large the draws', () => {
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
