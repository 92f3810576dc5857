import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import {
  digestStart,
  encodeContent,
  encodePiece,
  lengthOf,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
  scanIndex,
} from '../../../src/store/index-format.js';
import { sha256 } from './support.js';

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
