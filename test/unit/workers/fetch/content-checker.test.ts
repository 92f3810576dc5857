import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { DIGEST_BYTES, digestOfBytes, parseDigest } from '../../../../src/format/digest.js';
import { allocateTable, type LayerTable } from '../../../../src/format/layer-table.js';
import { ContentChecker } from '../../../../workers/fetch/content-checker.js';
import { tableOf } from '../../../support/layer-tables.js';
import { noise } from '../../../support/layout.js';

/** A tar of 100 bytes whose contents are [10, 30), [40, 45) and, in chunks at 60, 70 and 85, [60, 100). */
const TAR = noise(1, 100);

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function trueTable(): LayerTable {
  const table = tableOf(
    [
      { name: 'a', blob: [100, 300], tarStart: 10, sizeBytes: 20 },
      { name: 'b', blob: [310, 350], tarStart: 40, sizeBytes: 5 },
      {
        name: 'c',
        blob: [400, 800],
        tarStart: 60,
        sizeBytes: 40,
        chunks: [
          { blobStart: 400, tarStart: 60 },
          { blobStart: 500, tarStart: 70 },
          { blobStart: 650, tarStart: 85 },
        ],
      },
    ],
    900,
    100,
  );
  const parts = [
    [10, 30],
    [40, 45],
    [60, 100],
  ] as const;
  for (const [row, [start, end]] of parts.entries()) {
    table.digests.set(sha256(TAR.subarray(start, end)), row * DIGEST_BYTES);
  }
  const chunks = [
    [60, 70],
    [70, 85],
    [85, 100],
  ] as const;
  for (const [row, [start, end]] of chunks.entries()) {
    table.chunkDigests.set(sha256(TAR.subarray(start, end)), row * DIGEST_BYTES);
  }
  return table;
}

function checkerOf(
  tarStart: number,
  tarEnd: number,
  table = trueTable(),
  checkContents = true,
): ContentChecker {
  const blob = { url: 'http://x/', digest: parseDigest(`sha256:${'0'.repeat(64)}`, 'blob'), sizeBytes: 1000 };
  return new ContentChecker({
    task: 'fetch-span',
    blob,
    table,
    blobStart: 0,
    blobEnd: 900,
    tarStart,
    tarEnd,
    pieceBytes: 1,
    checkContents,
  });
}

test('contents within a piece are proven, with their offsets in the pack', () => {
  const { contents, wrong } = checkerOf(0, 50).check(TAR.subarray(0, 50), 0, 7000);
  assert.equal(wrong, undefined);
  assert.equal(contents.count, 2);
  assert.deepEqual([...contents.packOffset], [7010, 7040]);
  assert.deepEqual([...contents.lengthBytes], [20, 5]);
  assert.deepEqual(Buffer.from(contents.digests.subarray(32, 64)), sha256(TAR.subarray(40, 45)));
});

test('a content that crosses pieces is proven by the piece it ends in', () => {
  const checker = checkerOf(0, 50);
  const cuts = [0, 12, 13, 29, 42, 50];
  const found = cuts.slice(1).map((end, i) => checker.check(TAR.subarray(cuts[i], end), cuts[i]!, cuts[i]!));
  assert.deepEqual(
    found.map(({ contents, wrong }) => [contents.count, wrong]),
    [
      [0, undefined],
      [0, undefined],
      [0, undefined],
      [1, undefined],
      [1, undefined],
    ],
  );
  assert.deepEqual([...found[3]!.contents.packOffset], [10]);
  assert.deepEqual([...found[3]!.contents.lengthBytes], [20]);
});

test('a wrong byte is found wherever the pieces are cut', () => {
  for (let at = 10; at < 30; at++) {
    for (const cut of [1, 10, 20, 29, 30]) {
      const bad = Buffer.from(TAR);
      bad[at]! ^= 1;
      const checker = checkerOf(0, 50);
      const first = checker.check(bad.subarray(0, cut), 0, 0);
      const { contents, wrong } =
        first.wrong === undefined ? checker.check(bad.subarray(cut, 50), cut, cut) : first;
      assert.equal(contents.count, 0);
      assert.deepEqual(
        [wrong?.content, wrong?.blobStart, wrong?.tarStart],
        [0, 100, 10],
        `byte ${at}, cut ${cut}`,
      );
      assert.equal(wrong?.expected, digestOfBytes(sha256(TAR.subarray(10, 30))));
      assert.equal(wrong?.actual, digestOfBytes(sha256(bad.subarray(10, 30))));
    }
  }
});

test('contents before a wrong one are proven', () => {
  const bad = Buffer.from(TAR);
  bad[44]! ^= 1;
  const { contents, wrong } = checkerOf(0, 50).check(bad.subarray(0, 50), 0, 0);
  assert.equal(contents.count, 1);
  assert.deepEqual([wrong?.content, wrong?.blobStart, wrong?.tarStart], [1, 310, 40]);
});

test('a content in chunks is proven chunk by chunk', () => {
  const { contents } = checkerOf(60, 100).check(TAR.subarray(60), 60, 0);
  assert.deepEqual([...contents.packOffset], [0, 10, 25]);
  const bad = Buffer.from(TAR);
  bad[84]! ^= 1;
  const second = checkerOf(60, 100).check(bad.subarray(60), 60, 0);
  assert.equal(second.contents.count, 1);
  assert.deepEqual([second.wrong?.content, second.wrong?.blobStart, second.wrong?.tarStart], [2, 500, 70]);
});

test('a content that is only partly in the span is not listed', () => {
  const bad = Buffer.from(TAR);
  bad[28]! ^= 1;
  const { contents, wrong } = checkerOf(20, 50).check(bad.subarray(20, 50), 20, 0);
  assert.equal(wrong, undefined);
  assert.equal(contents.count, 1);
  assert.deepEqual([...contents.packOffset], [20]);
});

test('chunks that are entirely in the span are proven', () => {
  const { contents } = checkerOf(65, 90).check(TAR.subarray(65, 90), 65, 0);
  assert.deepEqual([...contents.packOffset], [5]);
  assert.deepEqual([...contents.lengthBytes], [15]);
  assert.deepEqual(Buffer.from(contents.digests), sha256(TAR.subarray(70, 85)));
});

test('contents that the DiffID proves are listed with the digests that the metadata states', () => {
  const bad = Buffer.from(TAR);
  bad[44]! ^= 1;
  const checker = checkerOf(0, 100, trueTable(), false);
  const found = [0, 42, 70].map((start, i, starts) =>
    checker.check(bad.subarray(start, starts[i + 1] ?? 100), start, start),
  );
  assert.deepEqual(
    found.map(({ contents, wrong }) => [[...contents.packOffset], contents.stated, wrong]),
    [
      [[10], true, undefined],
      [[40, 60], true, undefined],
      [[70, 85], true, undefined],
    ],
  );
  assert.deepEqual(Buffer.from(found[1]!.contents.digests.subarray(0, 32)), sha256(TAR.subarray(40, 45)));
  assert.equal(checkerOf(0, 50).check(TAR.subarray(0, 50), 0, 0).contents.stated, false);
});

/** A table whose contents are one byte of TAR each, one after the other. */
function oneByteContents(count: number): LayerTable {
  const table = allocateTable({ count, chunks: 0, dataEnd: count, tarBytes: count });
  const digests = [...TAR].map((byte) => sha256(Uint8Array.of(byte)));
  for (let row = 0; row < count; row++) {
    table.blobStart[row] = row;
    table.blobEnd[row] = row + 1;
    table.tarStart[row] = row;
    table.sizeBytes[row] = 1;
    table.digests.set(digests[row % TAR.length]!, row * DIGEST_BYTES);
  }
  return table;
}

test('a piece can prove any number of contents', () => {
  const tar = Buffer.concat([TAR, TAR, TAR]);
  const { contents } = checkerOf(0, 300, oneByteContents(300)).check(tar, 0, 50);
  assert.equal(contents.count, 300);
  assert.deepEqual(
    [...contents.packOffset],
    Array.from(tar, (_, at) => at + 50),
  );
  assert.deepEqual(contents.digests, oneByteContents(300).digests.slice());
});

test('a span of many contents takes no memory for those that are not received', () => {
  const table = oneByteContents(200_000);
  const before = process.memoryUsage().heapUsed;
  const checker = checkerOf(0, 200_000, table);
  // An object for each would be 16 MB and more.
  assert.ok(process.memoryUsage().heapUsed - before < 4e6);
  assert.equal(checker.check(TAR, 0, 0).contents.count, 100);
});
