import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acquireBuffer, releaseBuffer } from '../../../../workers/fetch/piece-cutter.js';

const MIB = 2 ** 20;

// One test, as the free buffers are the thread's: the first one taken decides their size.
test('buffers of the common size are used again, and larger ones where what is needed fits', () => {
  const first = acquireBuffer(1000);
  assert.equal(first.length, 1000);
  releaseBuffer(first);
  const large = acquireBuffer(4.5 * MIB);
  assert.equal(large.length, 5 * MIB);
  releaseBuffer(large);
  assert.equal(acquireBuffer(900), first);
  // No other was free: what comes now is new, and of the size that all have.
  const next = acquireBuffer(10);
  assert.equal(next.length, 1000);
  assert.notEqual(next, first);
  assert.equal(acquireBuffer(6 * MIB).length, 6 * MIB);
  assert.equal(acquireBuffer(4.6 * MIB), large);
  assert.notEqual(acquireBuffer(4.6 * MIB), large);
});

test('larger buffers are kept up to 32 MiB', () => {
  const given = Array.from({ length: 5 }, () => acquireBuffer(10 * MIB));
  for (const buffer of given) releaseBuffer(buffer);
  const again = Array.from({ length: 5 }, () => acquireBuffer(10 * MIB));
  assert.equal(again.filter((buffer) => given.includes(buffer)).length, 3);
});

test('only so many buffers are kept free', () => {
  const given = Array.from({ length: 200 }, () => acquireBuffer(1000));
  for (const buffer of given) releaseBuffer(buffer);
  const again = Array.from({ length: 200 }, () => acquireBuffer(1000));
  const reused = again.filter((buffer) => given.includes(buffer)).length;
  assert.ok(reused > 0 && reused <= 50, `${reused}`);
});
