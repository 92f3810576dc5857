import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { decodeFrames } from '../../../../workers/fetch/decode.js';
import { noise } from '../../../support/layout.js';

test('of calls that wait, the one of the earliest span is next', async () => {
  const order: number[] = [];
  const frame = await compress(Buffer.alloc(2 ** 21, 'text'), 3);
  const calls = [5, 6, 9, 8, 7, 3].map(async (priority) => {
    await decodeFrames(frame, priority);
    order.push(priority);
  });
  await Promise.all(calls);
  // Two run at once: when the last of those that waited begins, all others but one have ended.
  const waited = order.filter((priority) => priority !== 5 && priority !== 6);
  assert.ok(waited.indexOf(9) >= 2, order.join());
});

test('a call that fails gives its turn back', async () => {
  const bytes = noise(1, 3000);
  for (let i = 0; i < 5; i++) await assert.rejects(decodeFrames(noise(i, 100), i));
  assert.ok((await decodeFrames(await compress(bytes, 3), 1)).equals(bytes));
});
