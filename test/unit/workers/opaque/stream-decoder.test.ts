import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodedQueue } from '../../../../workers/opaque/stream-decoder.js';

test('bytes are consumed in order, in parts of a MiB, a few in each later turn', async () => {
  const lengths: number[] = [];
  const out = new DecodedQueue((bytes) => lengths.push(bytes.length));
  out.push(Buffer.alloc(3));
  out.push(Buffer.alloc(6 * 2 ** 20 + 1));
  assert.deepEqual(lengths, []);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(lengths.length, 4);
  await out.drained();
  assert.deepEqual(lengths, [3, ...new Array(6).fill(2 ** 20), 1]);
});

test('a decoder waits for room while 8 MiB are queued', async () => {
  let taken = 0;
  const out = new DecodedQueue((bytes) => {
    taken += bytes.length;
  });
  out.push(Buffer.alloc(2 ** 20));
  await out.room();
  assert.equal(taken, 0);
  out.push(Buffer.alloc(8 * 2 ** 20));
  await out.room();
  assert.ok(taken >= 2 ** 20);
});

test('the error of the consumer rejects all who wait, and nothing is consumed after it', async () => {
  let calls = 0;
  const out = new DecodedQueue(() => {
    calls += 1;
    throw new Error('no room');
  });
  out.push(Buffer.alloc(1));
  out.push(Buffer.alloc(1));
  await assert.rejects(out.drained(), /no room/);
  out.push(Buffer.alloc(1));
  await assert.rejects(out.room(), /no room/);
  assert.equal(calls, 1);
});

test('nothing is consumed after close', async () => {
  let calls = 0;
  const out = new DecodedQueue(() => {
    calls += 1;
  });
  out.push(Buffer.alloc(1));
  out.close();
  // A program that is being ended may have more in its pipe.
  out.push(Buffer.alloc(1));
  await out.drained();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(calls, 0);
});
