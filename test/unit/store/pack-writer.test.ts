import assert from 'node:assert/strict';
import fs, { existsSync, readdirSync, readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { type TestContext, test } from 'node:test';
import { crc32 } from 'node:zlib';
import {
  lengthOf,
  packOffsetOf,
  pieceOf as pieceAt,
  RECORD_BYTES,
  scanIndex,
} from '../../../src/store/pack-index.js';
import { PackWriter } from '../../../src/store/pack-writer.js';
import { indexPath, packPath } from '../../../src/store/paths.js';
import { freshStore, pieceOf, sha256 } from './support.js';

test('the first reservation creates a pack', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  assert.equal(writer.id, undefined);
  assert.deepEqual(readdirSync(paths.packs), []);
  const region = writer.reserve(10);
  assert.equal(writer.id, region.pack);
  assert.deepEqual(readdirSync(paths.packs).sort(), [`${region.pack}.idx.open`, `${region.pack}.pack`]);
  writer.close();
});

test('spans written in turns are contiguous, and an interrupted one leaves a hole', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  const first = writer.reserve(4);
  const brokenOff = writer.reserve(3);
  const last = writer.reserve(4);
  assert.deepEqual([first.start, first.end, brokenOff.start, last.start], [0, 4, 4, 7]);
  writer.writePiece(last, pieceOf(Buffer.from('CC'), 7));
  writer.writePiece(first, pieceOf(Buffer.from('AA'), 0));
  writer.writeUnindexed(last, Buffer.from('DD'), 9);
  writer.writePiece(first, pieceOf(Buffer.from('BB'), 2));
  writer.close();
  assert.equal(readFileSync(packPath(paths, first.pack), 'latin1'), 'AABB\0\0\0CCDD');
});

test('the index has a record for each piece and none for unindexed bytes', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  const region = writer.reserve(20);
  const bytes = Buffer.from('hello world');
  const runs = [
    { digest: sha256('hello'), packOffset: 0, lengthBytes: 5 },
    { digest: sha256('world'), packOffset: 6, lengthBytes: 5 },
  ];
  writer.writeUnindexed(region, Buffer.from('plain'), 11);
  writer.writePiece(region, pieceOf(bytes, 0, runs, { blobStart: 7, blobLength: 9, tarStart: 512 }));
  writer.close();
  const index = readFileSync(indexPath(paths, region.pack, false));
  assert.equal(index.length, 3 * RECORD_BYTES);
  const piece = pieceAt(index, 0);
  assert.deepEqual(piece, {
    raw: false,
    blobDigest: sha256('blob'),
    packOffset: 0,
    lengthBytes: 11,
    blobStart: 7,
    blobLength: 9,
    tarStart: 512,
    crc32: crc32(bytes),
  });
  const found: [number, number][] = [];
  scanIndex(
    index,
    (type) => type === 2,
    (_, at) => found.push([packOffsetOf(index, at), lengthOf(index, at)]),
  );
  assert.deepEqual(found, [
    [0, 5],
    [6, 5],
  ]);
});

test('a piece with more contents than the first buffer is indexed completely', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  const region = writer.reserve(1000);
  const runs = Array.from({ length: 1000 }, (_, i) => ({
    digest: sha256(String(i)),
    packOffset: i,
    lengthBytes: 1,
  }));
  writer.writePiece(region, pieceOf(Buffer.alloc(1000), 0, runs));
  writer.close();
  let records = 0;
  scanIndex(
    readFileSync(indexPath(paths, region.pack, false)),
    () => true,
    () => records++,
  );
  assert.equal(records, 1001);
});

test('the records of one piece follow those of the one before', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  const region = writer.reserve(20);
  for (const start of [0, 10]) {
    const run = { digest: sha256(String(start)), packOffset: start, lengthBytes: 10 };
    writer.writePiece(region, pieceOf(Buffer.alloc(10), start, [run]));
  }
  writer.close();
  const offsets: number[] = [];
  const index = readFileSync(indexPath(paths, region.pack, false));
  scanIndex(
    index,
    () => true,
    (_, at) => offsets.push(packOffsetOf(index, at)),
  );
  assert.deepEqual(offsets, [0, 0, 10, 10]);
});

test('nothing is written outside a region', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  writer.reserve(5);
  const region = writer.reserve(5);
  const outside = { digest: sha256('x'), packOffset: 4, lengthBytes: 2 };
  assert.throws(() => writer.writeUnindexed(region, Buffer.alloc(2), 4), RangeError);
  assert.throws(() => writer.writePiece(region, pieceOf(Buffer.alloc(2), 9)), RangeError);
  assert.throws(() => writer.writePiece(region, pieceOf(Buffer.alloc(2), 5, [outside])), RangeError);
  writer.writeUnindexed(region, Buffer.alloc(5), 5);
  writer.close();
});

/** From now on the nth write of this test fails as on a full disk, after half of its bytes. */
function failWrite(t: TestContext, failing: number): void {
  type Write = (fd: number, bytes: Uint8Array, start: number, length: number, position: number) => number;
  const real = fs.writeSync as Write;
  let calls = 0;
  const mock = t.mock.method(fs, 'writeSync', ((fd, bytes, start, length, position) => {
    calls += 1;
    if (calls === failing) return real(fd, bytes, start, length >> 1, position);
    if (calls === failing + 1) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    return real(fd, bytes, start, length, position);
  }) as Write);
  syncBuiltinESMExports();
  t.after(() => {
    mock.mock.restore();
    syncBuiltinESMExports();
  });
}

for (const [what, failing] of [
  ['a piece', 3],
  ['its index', 4],
] as const) {
  test(`after a failed write of ${what} the pack takes no further byte`, (t) => {
    const paths = freshStore(t);
    failWrite(t, failing);
    const writer = new PackWriter(paths);
    const region = writer.reserve(100);
    writer.writePiece(region, pieceOf(Buffer.alloc(10, 1), 0));
    assert.throws(() => writer.writePiece(region, pieceOf(Buffer.alloc(10, 2), 10)), { code: 'store-full' });
    assert.equal(writer.id, undefined);
    const left = readFileSync(packPath(paths, region.pack));
    // For the first reason: a user is told of the full disk, whichever span speaks up first.
    assert.throws(() => writer.writePiece(region, pieceOf(Buffer.alloc(10, 3), 20)), { code: 'store-full' });
    const next = writer.reserve(10);
    assert.notEqual(next.pack, region.pack);
    assert.throws(() => writer.writeUnindexed(region, Buffer.alloc(1), 0), { code: 'store-full' });
    writer.writePiece(next, pieceOf(Buffer.alloc(10, 4), 0));
    writer.close();
    assert.deepEqual(readFileSync(packPath(paths, region.pack)), left);
    let sound = 0;
    scanIndex(
      readFileSync(indexPath(paths, region.pack, false)),
      () => true,
      () => sound++,
    );
    assert.equal(sound, 1);
  });
}

test('after close a reservation opens a new pack, and regions of the old one are refused', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  const old = writer.reserve(10);
  writer.close();
  writer.close();
  const region = writer.reserve(10);
  assert.notEqual(region.pack, old.pack);
  assert.throws(() => writer.writeUnindexed(old, Buffer.alloc(1), 0), { code: 'store-broken' });
  writer.close();
  assert.ok(existsSync(packPath(paths, region.pack)));
});

test('records of raw pieces and contents follow their bytes, within their region only', (t) => {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  writer.reserve(4);
  const region = writer.reserve(11);
  const bytes = Buffer.from('hello world');
  writer.writeUnindexed(region, bytes, 4);
  const raw = {
    blobDigest: sha256('blob'),
    packOffset: 4,
    lengthBytes: 11,
    blobStart: 70,
    crc32: crc32(bytes),
  };
  writer.recordBlobPart(region, raw);
  const { contents } = pieceOf(bytes, 4, [
    { digest: sha256('hello'), packOffset: 4, lengthBytes: 5 },
    { digest: sha256('world'), packOffset: 10, lengthBytes: 5 },
  ]);
  writer.recordContents(region, contents);
  writer.recordContents(region, { ...contents, count: 0 });
  assert.throws(() => writer.recordBlobPart(region, { ...raw, packOffset: 3 }), RangeError);
  assert.throws(() => writer.recordBlobPart(region, { ...raw, lengthBytes: 12 }), RangeError);
  const outside = pieceOf(bytes, 4, [{ digest: sha256('x'), packOffset: 14, lengthBytes: 2 }]);
  assert.throws(() => writer.recordContents(region, outside.contents), RangeError);
  writer.close();
  assert.throws(() => writer.recordBlobPart(region, raw), { code: 'store-broken' });
  assert.throws(() => writer.recordContents(region, contents), { code: 'store-broken' });
  const index = readFileSync(indexPath(paths, region.pack, false));
  assert.equal(index.length, 3 * RECORD_BYTES);
  assert.deepEqual(pieceAt(index, 0), { ...raw, raw: true, blobLength: 11, tarStart: 0 });
  assert.deepEqual([packOffsetOf(index, RECORD_BYTES), lengthOf(index, RECORD_BYTES)], [4, 5]);
  assert.deepEqual([packOffsetOf(index, 2 * RECORD_BYTES), lengthOf(index, 2 * RECORD_BYTES)], [10, 5]);
});
