import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { DECODE_CALL_BYTES, decodeFrames, decodeMembers } from '../../../../workers/fetch/decode.js';
import { noise } from '../../../support/layout.js';

const MIB = 2 ** 20;
const A = noise(1, 3000);
const B = Buffer.alloc(2 * MIB, 'text');

test('members one after the other decode to all of what they are', async () => {
  const members = Buffer.concat([gzipSync(A), gzipSync(Buffer.alloc(0)), gzipSync(B)]);
  assert.ok((await decodeMembers(members, A.length + B.length, 1)).equals(Buffer.concat([A, B])));
  assert.ok((await decodeMembers(members, DECODE_CALL_BYTES, 1)).equals(Buffer.concat([A, B])));
});

test('members that decode to nothing may be bounded by nothing', async () => {
  assert.equal((await decodeMembers(gzipSync(Buffer.alloc(0)), 0, 1)).length, 0);
});

test('members that decode to more than they may are refused', async () => {
  for (const bytes of [A, B, Buffer.alloc(40 * MIB)]) {
    const members = gzipSync(bytes);
    assert.ok((await decodeMembers(members, bytes.length, 1)).equals(bytes));
    await assert.rejects(decodeMembers(members, bytes.length - 1, 1), { code: 'metadata-malformed' });
  }
  const both = Buffer.concat([gzipSync(A), gzipSync(A)]);
  await assert.rejects(decodeMembers(both, 2 * A.length - 1, 1), { code: 'metadata-malformed' });
});

test('what is no member, or not a whole one, is malformed', async () => {
  const member = gzipSync(A);
  const flipped = Buffer.from(member);
  flipped[member.length - 6]! ^= 1;
  const bad = [
    noise(1, 500),
    await compress(A, 3),
    member.subarray(0, member.length - 1),
    member.subarray(0, 5),
    Buffer.concat([member, member.subarray(0, 100)]),
    flipped,
    Buffer.alloc(0),
  ];
  for (const [i, bytes] of bad.entries()) {
    await assert.rejects(decodeMembers(bytes, MIB, 1), { code: 'metadata-malformed' }, `number ${i}`);
  }
});

test('zeros behind a member are passed over with all that follows them, anything else is malformed', async () => {
  const between = (bytes: Buffer) => decodeMembers(Buffer.concat([gzipSync(A), bytes, gzipSync(A)]), MIB, 1);
  assert.ok((await between(Buffer.alloc(20))).equals(A));
  await assert.rejects(between(Buffer.from('garbage')), { code: 'metadata-malformed' });
});

test('of calls that wait, the one of the earliest span is next, whatever it decodes', async () => {
  const order: number[] = [];
  const member = gzipSync(B);
  const frame = await compress(B, 3);
  const calls = [5, 6, 9, 8, 7, 3].map(async (priority) => {
    const isFrame = priority % 2 === 0;
    await (isFrame ? decodeFrames(frame, priority) : decodeMembers(member, B.length, priority));
    order.push(priority);
  });
  await Promise.all(calls);
  // Two run at once: when the last of those that waited begins, all others but one have ended.
  const waited = order.filter((priority) => priority !== 5 && priority !== 6);
  assert.ok(waited.indexOf(9) >= 2, order.join());
});

test('a call that fails gives its turn back', async () => {
  for (let i = 0; i < 5; i++) await assert.rejects(decodeMembers(noise(i, 100), 10, i));
  assert.ok((await decodeMembers(gzipSync(A), A.length, 1)).equals(A));
});
