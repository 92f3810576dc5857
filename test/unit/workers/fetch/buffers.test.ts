import assert from 'node:assert/strict';
import { test } from 'node:test';
import { giveBuffer, takeBuffer } from '../../../../workers/fetch/piece-cutter.js';

const MIB = 2 ** 20;

// One test, as the free buffers are the thread's: the first one taken decides their size.
test('buffers of the common size are used again, and larger ones where what is needed fits', () => {
  const first = takeBuffer(1000);
  assert.equal(first.length, 1000);
  giveBuffer(first);
  const large = takeBuffer(4.5 * MIB);
  assert.equal(large.length, 5 * MIB);
  giveBuffer(large);
  assert.equal(takeBuffer(900), first);
  // No other was free: what comes now is new, and of the size that all have.
  const next = takeBuffer(10);
  assert.equal(next.length, 1000);
  assert.notEqual(next, first);
  assert.equal(takeBuffer(6 * MIB).length, 6 * MIB);
  assert.equal(takeBuffer(4.6 * MIB), large);
  assert.notEqual(takeBuffer(4.6 * MIB), large);
});

test('larger buffers are kept up to 32 MiB', () => {
  const given = Array.from({ length: 5 }, () => takeBuffer(10 * MIB));
  for (const buffer of given) giveBuffer(buffer);
  const again = Array.from({ length: 5 }, () => takeBuffer(10 * MIB));
  assert.equal(again.filter((buffer) => given.includes(buffer)).length, 3);
});

test('only so many buffers are kept free', () => {
  const given = Array.from({ length: 200 }, () => takeBuffer(1000));
  for (const buffer of given) giveBuffer(buffer);
  const again = Array.from({ length: 200 }, () => takeBuffer(1000));
  const reused = again.filter((buffer) => given.includes(buffer)).length;
  assert.ok(reused > 0 && reused <= 50, `${reused}`);
});
