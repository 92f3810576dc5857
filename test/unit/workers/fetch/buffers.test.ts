import assert from 'node:assert/strict';
import { test } from 'node:test';
import { giveBuffer, takeBuffer } from '../../../../workers/fetch/buffers.js';

// One test, as the free buffers are the thread's: the first one taken decides their size.
test('buffers of the common size are used again; a larger one is made for once and not kept', () => {
  const first = takeBuffer(1000);
  assert.equal(first.length, 1000);
  giveBuffer(first);
  const large = takeBuffer(50_000);
  assert.equal(large.length, 50_000);
  giveBuffer(large);
  assert.equal(takeBuffer(900), first);
  // No other was free: what comes now is new, and of the size that all have.
  const next = takeBuffer(10);
  assert.equal(next.length, 1000);
  assert.notEqual(next, first);
  assert.equal(takeBuffer(50_000).length, 50_000);
  assert.equal(takeBuffer(1000).length, 1000);
});

test('only so many buffers are kept free', () => {
  const given = Array.from({ length: 200 }, () => takeBuffer(1000));
  for (const buffer of given) giveBuffer(buffer);
  const again = Array.from({ length: 200 }, () => takeBuffer(1000));
  const reused = again.filter((buffer) => given.includes(buffer)).length;
  assert.ok(reused > 0 && reused <= 50, `${reused}`);
});
