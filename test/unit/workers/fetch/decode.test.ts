import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { decodeFrames } from '../../../../workers/fetch/decode.js';
import { noise } from '../../../support/layout.js';

test('calls that wait are served in their order', async () => {
  const order: number[] = [];
  const frame = await compress(Buffer.alloc(2 ** 21, 'text'), 3);
  const calls = [0, 1, 2, 3, 4, 5].map(async (call) => {
    await decodeFrames(frame);
    order.push(call);
  });
  await Promise.all(calls);
  // Two run at once: when the last one begins, all others but one have ended.
  assert.ok(order.indexOf(5) >= 4, order.join());
});

test('a call that fails gives its turn back', async () => {
  const bytes = noise(1, 3000);
  for (let i = 0; i < 5; i++) await assert.rejects(decodeFrames(noise(i, 100)));
  assert.ok((await decodeFrames(await compress(bytes, 3))).equals(bytes));
});
