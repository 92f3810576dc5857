import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { DECODE_CALL_BYTES } from '../../../../workers/fetch/decode.js';
import { decodeMembers } from '../../../../workers/fetch/member-walker.js';
import { noise } from '../../../support/layout.js';

const MIB = 2 ** 20;
const A = noise(1, 3000);
const B = Buffer.alloc(2 * MIB, 'text');

test('members one after the other decode to all of what they are', () => {
  const members = Buffer.concat([gzipSync(A), gzipSync(Buffer.alloc(0)), gzipSync(B)]);
  assert.ok(decodeMembers(members, A.length + B.length).equals(Buffer.concat([A, B])));
  assert.ok(decodeMembers(members, DECODE_CALL_BYTES).equals(Buffer.concat([A, B])));
});

test('members that decode to nothing may be bounded by nothing', () => {
  assert.equal(decodeMembers(gzipSync(Buffer.alloc(0)), 0).length, 0);
});

test('members that decode to more than they may are refused', () => {
  for (const bytes of [A, B, Buffer.alloc(40 * MIB)]) {
    const members = gzipSync(bytes);
    assert.ok(decodeMembers(members, bytes.length).equals(bytes));
    assert.throws(() => decodeMembers(members, bytes.length - 1), { code: 'metadata-malformed' });
  }
  const both = Buffer.concat([gzipSync(A), gzipSync(A)]);
  assert.throws(() => decodeMembers(both, 2 * A.length - 1), { code: 'metadata-malformed' });
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
    assert.throws(() => decodeMembers(bytes, MIB), { code: 'metadata-malformed' }, `number ${i}`);
  }
});

test('zeros behind a member are passed over with all that follows them, anything else is malformed', () => {
  const between = (bytes: Buffer) => decodeMembers(Buffer.concat([gzipSync(A), bytes, gzipSync(A)]), MIB);
  assert.ok(between(Buffer.alloc(20)).equals(A));
  assert.throws(() => between(Buffer.from('garbage')), { code: 'metadata-malformed' });
});

test('what a call decoded is freed by the next call, and by no collection', () => {
  const bytes = Buffer.alloc(8 * MIB);
  const members = gzipSync(bytes);
  decodeMembers(members, bytes.length);
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 3; i++) {
    const decoded = decodeMembers(members, bytes.length);
    decodeMembers(gzipSync(A), A.length);
    assert.equal(decoded.length, 0, 'its memory is gone');
  }
  const after = process.memoryUsage().arrayBuffers;
  assert.ok(after < before, `${after - before} bytes more`);
  // Small ones may share their memory with others.
  assert.ok(decodeMembers(gzipSync(A), A.length).equals(A));
});
