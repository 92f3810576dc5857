import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { cutPoints } from '../../../../src/format/layer-table.js';
import { DECODE_CALL_BYTES } from '../../../../src/format/metadata-position.js';
import { decodeMembers, MemberWalker } from '../../../../workers/fetch/member-walker.js';
import { type ContentRow, tableOf } from '../../../support/layer-tables.js';
import { noise } from '../../../support/layout.js';
import { seededRandom } from '../../../support/random.js';
import { randomTar } from '../../../support/random-tar.js';
import { writeTocOnly } from '../../../support/toc-only-layers.js';

const NOTHING = new Uint8Array(0);
const MIB = 2 ** 20;
const SEEDS = 10;

const ROWS: readonly ContentRow[] = [
  { name: 'a', blob: [100, 300], tarStart: 5000, sizeBytes: 20 },
  { name: 'b', blob: [300, 900], tarStart: 14_000, sizeBytes: 20 },
];
const TABLE = tableOf(ROWS, 900, 20_000, { layout: 'shared-frames', compression: 'gzip' });

test('a member is complete when all bytes before the next one are received', () => {
  const walker = new MemberWalker(TABLE, 0, 900);
  const seen: number[][] = [];
  for (const received of [0, 1, 99, 100, 101, 299, 300, 899, 900]) {
    walker.advance(NOTHING, received);
    seen.push([walker.frameCount, walker.completeBytes, walker.openFrameBytes]);
  }
  assert.deepEqual(seen, [
    [0, 0, 0],
    [0, 0, 100],
    [0, 0, 100],
    [1, 100, 0],
    [1, 100, 200],
    [1, 100, 200],
    [2, 300, 0],
    [2, 300, 600],
    [3, 900, 0],
  ]);
  assert.deepEqual(
    [0, 1, 2].map((index) => walker.frameEnd(index)),
    [100, 300, 900],
  );
  assert.deepEqual(
    [0, 1, 2].map((index) => walker.boundUpTo(index)),
    [5000, 14_000, 20_000],
  );
});

test('offsets count from the last cut', () => {
  const walker = new MemberWalker(TABLE, 0, 900);
  walker.advance(NOTHING, 350);
  walker.cut(100);
  assert.deepEqual([walker.frameCount, walker.frameEnd(0), walker.boundUpTo(0)], [1, 200, 9000]);
  assert.deepEqual([walker.completeBytes, walker.openFrameBytes], [200, 600]);
  walker.cut(200);
  assert.deepEqual([walker.frameCount, walker.completeBytes, walker.openFrameBytes], [0, 0, 600]);
  walker.advance(NOTHING, 600);
  assert.deepEqual([walker.frameCount, walker.frameEnd(0), walker.boundUpTo(0)], [1, 600, 6000]);
});

test('if all members are complete there is no open one', () => {
  const walker = new MemberWalker(TABLE, 0, 900);
  walker.advance(NOTHING, 300);
  walker.cut(100);
  assert.deepEqual([walker.frameCount, walker.completeBytes, walker.openFrameBytes], [1, 200, 0]);
});

test('a span has only the members in it', () => {
  const walker = new MemberWalker(TABLE, 100, 300);
  walker.advance(NOTHING, 200);
  assert.deepEqual([walker.frameCount, walker.frameEnd(0), walker.boundUpTo(0)], [1, 200, 9000]);
  // A server that sends more: it belongs to no member.
  walker.advance(NOTHING, 250);
  assert.deepEqual([walker.frameCount, walker.completeBytes, walker.openFrameBytes], [1, 200, 0]);
});

test('the members of written layers are found, and none decodes to more than its bound', async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const options = { chunkBytes: 50_000, minChunkBytes: (seed % 3) * 30_000 };
    const { table, members, dataEnd } = await writeTocOnly('estargz', randomTar(random), options);
    const walker = new MemberWalker(table, 0, dataEnd);
    const ends = new Set(members.map(({ end }) => end));
    let blobAt = 0;
    for (let received = 0; received < dataEnd; ) {
      received = Math.min(dataEnd, received + random.int(1, 20_000));
      walker.advance(NOTHING, received - blobAt);
      for (let index = 0; index < walker.frameCount; index++) {
        const end = blobAt + walker.frameEnd(index);
        assert.ok(ends.has(end), `seed ${seed}`);
        const own = members.filter((member) => member.start >= blobAt && member.end <= end);
        const decoded = own.reduce((sum, { raw }) => sum + raw.length, 0);
        assert.ok(decoded <= walker.boundUpTo(index), `seed ${seed}`);
      }
      if (walker.frameCount > 0 && random.chance(0.5)) {
        const cut = walker.frameEnd(random.int(0, walker.frameCount - 1));
        walker.cut(cut);
        blobAt += cut;
      }
    }
    assert.equal(blobAt + walker.completeBytes, dataEnd, `seed ${seed}`);
    assert.equal(cutPoints(table).blobAt.at(-1), dataEnd);
  }
});

test('a member with many headers after its content is bounded by the limit of a call, not by its allotment', () => {
  const sized = (sizeBytes: number) => {
    const row: ContentRow = { name: 'a', blob: [0, 5000], tarStart: 4096, sizeBytes };
    const table = tableOf([row], 5000, 4096 + sizeBytes + 40 * MIB, {
      layout: 'shared-frames',
      compression: 'gzip',
    });
    const walker = new MemberWalker(table, 0, 5000);
    walker.advance(NOTHING, 5000);
    return walker.boundUpTo(0);
  };
  assert.equal(sized(20), DECODE_CALL_BYTES);
  assert.equal(sized(DECODE_CALL_BYTES), DECODE_CALL_BYTES);
  // The stated size is too large.
  assert.equal(sized(DECODE_CALL_BYTES + 1), DECODE_CALL_BYTES + 1 + 40 * MIB);
});

test('several members are bounded by the sum of their allotments', () => {
  const rows = ROWS.map((row, i) => ({ ...row, tarStart: row.tarStart + i * 20 * MIB }));
  const table = tableOf(rows, 900, 60 * MIB, { layout: 'shared-frames', compression: 'gzip' });
  const walker = new MemberWalker(table, 0, 900);
  walker.advance(NOTHING, 900);
  assert.equal(walker.boundUpTo(2), 60 * MIB);
});

const A = noise(1, 3000);
const B = Buffer.alloc(2 * MIB, 'text');

test('adjacent members decode to all of their contents', () => {
  const members = Buffer.concat([gzipSync(A), gzipSync(Buffer.alloc(0)), gzipSync(B)]);
  assert.ok(decodeMembers(members, A.length + B.length).equals(Buffer.concat([A, B])));
  assert.ok(decodeMembers(members, DECODE_CALL_BYTES).equals(Buffer.concat([A, B])));
});

test('empty members decode with a bound of 0', () => {
  assert.equal(decodeMembers(gzipSync(Buffer.alloc(0)), 0).length, 0);
});

test('members that decode to more than the bound are refused', () => {
  for (const bytes of [A, B, Buffer.alloc(40 * MIB)]) {
    const members = gzipSync(bytes);
    assert.ok(decodeMembers(members, bytes.length).equals(bytes));
    assert.throws(() => decodeMembers(members, bytes.length - 1), { code: 'metadata-malformed' });
  }
  const both = Buffer.concat([gzipSync(A), gzipSync(A)]);
  assert.throws(() => decodeMembers(both, 2 * A.length - 1), { code: 'metadata-malformed' });
});

test('bytes that are no complete member are malformed', async () => {
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

test('zeros after a member are skipped with everything after them, other bytes are malformed', () => {
  const between = (bytes: Buffer) => decodeMembers(Buffer.concat([gzipSync(A), bytes, gzipSync(A)]), MIB);
  assert.ok(between(Buffer.alloc(20)).equals(A));
  assert.throws(() => between(Buffer.from('garbage')), { code: 'metadata-malformed' });
});

test('the result of a call is freed by the next call, without a collection', () => {
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
