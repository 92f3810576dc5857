import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { DECODE_CALL_BYTES } from '../../../../src/format/metadata-position.js';
import { frameDecoder } from '../../../../workers/fetch/frame-decoder.js';
import { noise } from '../../../support/layout.js';

const MIB = 2 ** 20;
const A = noise(1, 3000);
const B = Buffer.alloc(2 * MIB, 'text');
const SKIPPABLE = Buffer.from('502a4d1803000000616263', 'hex');

test('adjacent frames decode to all of their contents, skippable ones to nothing', async () => {
  const decode = await frameDecoder();
  const frames = Buffer.concat([await compress(A), SKIPPABLE, await compress(B), SKIPPABLE]);
  assert.ok(decode(frames, A.length + B.length).equals(Buffer.concat([A, B])));
  assert.equal(decode(SKIPPABLE, 0).length, 0);
  assert.equal(decode(Buffer.alloc(0), 0).length, 0);
});

test('every call decodes into the same buffer, even the largest', async () => {
  const decode = await frameDecoder();
  const large = noise(2, DECODE_CALL_BYTES);
  const decoded = decode(await compress(large), large.length);
  assert.ok(decoded.equals(large));
  assert.equal(decode(await compress(A), MIB).byteOffset, decoded.byteOffset);
});

test('bytes that are no complete frame or exceed the bound are malformed, and the next call works', async () => {
  const decode = await frameDecoder();
  const frame = await compress(B);
  const flipped = Buffer.from(await compress(Buffer.concat([A, B])));
  flipped[flipped.length - 6]! ^= 0xff;
  const bad: ReadonlyArray<readonly [Buffer, number, RegExp]> = [
    [A, MIB, /unknown frame/],
    [frame.subarray(0, frame.length - 1), B.length, /cut off/],
    [Buffer.concat([frame, Buffer.from('more')]), B.length, /cut off|unknown frame/],
    [frame, B.length - 1, /decodes to more/],
    [Buffer.concat([frame, frame]), 2 * B.length - 1, /decodes to more/],
    [flipped, 3 * MIB, /./],
    [await compress(Buffer.alloc(DECODE_CALL_BYTES + 1)), 2 * DECODE_CALL_BYTES, /decodes to more/],
  ];
  for (const [i, [frames, mostBytes, message]] of bad.entries()) {
    assert.throws(() => decode(frames, mostBytes), { code: 'metadata-malformed', message }, `number ${i}`);
    assert.ok(decode(frame, B.length).equals(B));
  }
});

test('the global fetch, which is removed while the decoder is loaded, is restored', async () => {
  await frameDecoder();
  assert.equal(typeof globalThis.fetch, 'function');
});
