import assert from 'node:assert/strict';
import { readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { sealPack } from '../../../src/store/pack-files.js';
import {
  digestStart,
  encodeContent,
  encodePiece,
  type IndexedPack,
  IndexScan,
  lengthOf,
  listIndexedPacks,
  MAX_BAD_RECORDS,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
  scanIndex,
} from '../../../src/store/pack-index.js';
import { indexPath, type StorePaths } from '../../../src/store/paths.js';
import { freshStore, sha256, writePack } from './support.js';

const PIECE = {
  raw: false,
  blobDigest: sha256('blob'),
  packOffset: 2 ** 40 + 1,
  lengthBytes: 2 ** 33 + 3,
  blobStart: 2 ** 35 + 5,
  blobLength: 2 ** 32 - 1,
  tarStart: 2 ** 50 + 7,
  crc32: 0xfedcba98,
};

function soundRecords(bytes: Buffer): { type: number; at: number }[] {
  const found: { type: number; at: number }[] = [];
  scanIndex(
    bytes,
    () => true,
    (type, at) => found.push({ type, at }),
  );
  return found;
}

function threeRecords(): Buffer {
  const bytes = Buffer.alloc(3 * RECORD_BYTES, 0xee);
  encodePiece(bytes, 0, PIECE);
  encodeContent(bytes, RECORD_BYTES, Buffer.concat([sha256('a'), sha256('b')]), 1, 2 ** 41, 12_345);
  encodePiece(bytes, 2 * RECORD_BYTES, { ...PIECE, raw: true, lengthBytes: PIECE.blobLength, tarStart: 0 });
  return bytes;
}

test('records are decoded as they were encoded', () => {
  const bytes = threeRecords();
  const types = [RECORD_TYPES.piece, RECORD_TYPES.content, RECORD_TYPES.raw];
  assert.deepEqual(
    soundRecords(bytes),
    types.map((type, i) => ({ type, at: i * RECORD_BYTES })),
  );
  assert.deepEqual(pieceOf(bytes, 0), PIECE);
  assert.deepEqual(pieceOf(bytes, 2 * RECORD_BYTES), {
    ...PIECE,
    raw: true,
    lengthBytes: PIECE.blobLength,
    tarStart: 0,
  });
  assert.equal(packOffsetOf(bytes, RECORD_BYTES), 2 ** 41);
  assert.equal(lengthOf(bytes, RECORD_BYTES), 12_345);
  const start = digestStart(RECORD_BYTES);
  assert.deepEqual(bytes.subarray(start, start + 32), sha256('b'));
});

test('a content record has the bytes that docs/store-format.md states', () => {
  const bytes = threeRecords().subarray(RECORD_BYTES, 2 * RECORD_BYTES);
  const expected = Buffer.concat([
    Buffer.from([2, 0, 0, 0]),
    sha256('b'),
    Buffer.from([0, 0, 0, 0, 0, 2, 0, 0, 0x39, 0x30, 0, 0, 0, 0, 0, 0]),
    Buffer.alloc(24),
  ]);
  assert.deepEqual(bytes.subarray(4), expected);
  assert.equal(bytes.readUInt32LE(0), crc32(expected));
});

test('a record with any byte changed is skipped, and no other', () => {
  for (let damaged = 0; damaged < 3; damaged++) {
    for (let i = 0; i < RECORD_BYTES; i++) {
      const bytes = threeRecords();
      bytes[damaged * RECORD_BYTES + i]! ^= 1 << (i % 8);
      const left = soundRecords(bytes).map(({ at }) => at / RECORD_BYTES);
      assert.deepEqual(
        left,
        [0, 1, 2].filter((record) => record !== damaged),
        `byte ${i} of record ${damaged}`,
      );
    }
  }
});

test('zeros, a truncated record and an empty index have no records', () => {
  assert.deepEqual(soundRecords(Buffer.alloc(5 * RECORD_BYTES)), []);
  assert.deepEqual(soundRecords(Buffer.alloc(0)), []);
  assert.equal(soundRecords(threeRecords().subarray(0, 3 * RECORD_BYTES - 1)).length, 2);
});

/** A record changed at will, with its crc32 made right again. */
function forged(change: (record: Buffer) => void, record = 0): Buffer {
  const bytes = Buffer.from(threeRecords().subarray(record * RECORD_BYTES, (record + 1) * RECORD_BYTES));
  change(bytes);
  bytes.writeUInt32LE(crc32(bytes.subarray(4)), 0);
  return bytes;
}

test('a record with a right crc32 and impossible numbers is skipped', () => {
  assert.equal(soundRecords(forged(() => undefined)).length, 1);
  const impossible: Record<string, Buffer> = {
    'unknown type': forged((record) => record.writeUInt8(5, 4)),
    'reserved byte': forged((record) => record.writeUInt8(1, 6)),
    'empty run': forged((record) => record.fill(0, 48, 56)),
    'pack offset above 2^53': forged((record) => record.writeBigUInt64LE(2n ** 53n, 40)),
    'run that ends above 2^53': forged((record) => record.writeBigUInt64LE(2n ** 53n - 1n, 40)),
    'blob start above 2^53': forged((record) => record.writeBigUInt64LE(2n ** 60n, 56)),
    'tar start above 2^53': forged((record) => record.writeBigUInt64LE(2n ** 63n, 64)),
    'empty blob range': forged((record) => record.writeUInt32LE(0, 72)),
    'raw piece of another length': forged((record) => record.writeUInt32LE(1, 72), 2),
  };
  for (const [what, bytes] of Object.entries(impossible)) assert.deepEqual(soundRecords(bytes), [], what);
});

test('a number that is not a safe integer is never written', () => {
  const bytes = Buffer.alloc(RECORD_BYTES);
  for (const packOffset of [-1, 0.5, Number.NaN, 2 ** 53]) {
    assert.throws(() => encodePiece(bytes, 0, { ...PIECE, packOffset }), RangeError);
  }
});

test('records that the filter rejects are not visited', () => {
  const visited: number[] = [];
  scanIndex(
    threeRecords(),
    (type) => type === RECORD_TYPES.content,
    (_, at) => visited.push(at),
  );
  assert.deepEqual(visited, [RECORD_BYTES]);
});

function countRecords(paths: StorePaths, pack: IndexedPack, block?: Buffer): number {
  let count = 0;
  new IndexScan(paths, block).read(
    pack,
    () => true,
    () => count++,
  );
  return count;
}

test('sealed packs are listed first, with their sizes', async (t) => {
  const paths = freshStore(t);
  const ids = Array.from({ length: 6 }, (_, i) => writePack(paths, [Buffer.alloc(i + 1)]).id);
  for (const id of ids.slice(3)) await sealPack(paths, id);
  const listed = listIndexedPacks(paths);
  assert.deepEqual(
    listed.map(({ sealed }) => sealed),
    [true, true, true, false, false, false],
  );
  for (const { id, sizeBytes } of listed) assert.equal(sizeBytes, ids.indexOf(id) + 1);
});

test('an index longer than the block is read to its end', (t) => {
  const paths = freshStore(t);
  writePack(
    paths,
    Array.from({ length: 25 }, (_, i) => Buffer.from(`content ${i}`)),
  );
  const [pack] = listIndexedPacks(paths);
  for (const records of [1, 2, 13, 26, 100]) {
    assert.equal(countRecords(paths, pack!, Buffer.alloc(records * RECORD_BYTES)), 26);
  }
});

test('an index that was sealed since it was listed is found, and a missing one has no records', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const [pack] = listIndexedPacks(paths);
  await sealPack(paths, id);
  assert.equal(countRecords(paths, pack!), 2);
  unlinkSync(indexPath(paths, id, true));
  assert.equal(countRecords(paths, pack!), 0);
});

test('a scan stops after MAX_BAD_RECORDS invalid records in a row, also across blocks', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const path = indexPath(paths, id, false);
  const records = readFileSync(path);
  const [pack] = listIndexedPacks(paths);
  for (const [badRecords, count] of [
    [MAX_BAD_RECORDS - 1, 4],
    [MAX_BAD_RECORDS, 2],
  ] as const) {
    for (const fill of [0, 2]) {
      writeFileSync(path, Buffer.concat([records, Buffer.alloc(badRecords * RECORD_BYTES, fill), records]));
      for (const block of [undefined, Buffer.alloc(100 * RECORD_BYTES)])
        assert.equal(countRecords(paths, pack!, block), count);
    }
  }
  truncateSync(path, 2 ** 40);
  assert.equal(countRecords(paths, pack!), 2);
});

test('all indexes share one limit of bytes; indexes beyond it have no records', (t) => {
  const paths = freshStore(t);
  for (const text of ['x', 'y', 'z']) writePack(paths, [Buffer.from(text)]);
  for (const [budgetBytes, expected] of [
    [6 * RECORD_BYTES, 6],
    [4 * RECORD_BYTES - 1, 3],
    [RECORD_BYTES - 1, 0],
  ] as const) {
    for (const blockRecords of [1, 2, 100]) {
      const scan = new IndexScan(paths, Buffer.alloc(blockRecords * RECORD_BYTES), budgetBytes);
      let count = 0;
      for (const pack of listIndexedPacks(paths))
        scan.read(
          pack,
          () => true,
          () => count++,
        );
      assert.equal(count, expected);
    }
  }
});
