import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { crc32 } from 'node:zlib';
import { type PieceFields, pieceOf, RECORD_BYTES } from '../../../../src/store/pack-index.js';
import { PackWriter } from '../../../../src/store/pack-writer.js';
import { indexPath, packPath } from '../../../../src/store/paths.js';
import { blobReceiver } from '../../../../workers/fetch/checkpointed-writer.js';
import { noise } from '../../../support/layout.js';
import { freshStore, sha256 } from '../../store/support.js';

/** A receiver of a range that begins at byte 1000 of the blob and at byte 10 of the pack. */
function begin(t: TestContext, lengthBytes: number) {
  const paths = freshStore(t);
  const writer = new PackWriter(paths);
  writer.reserve(10);
  const region = writer.reserve(lengthBytes);
  const receiver = blobReceiver({ writer, region, blobDigest: sha256('blob'), blobStart: 1000 });
  const noted = (): PieceFields[] => {
    const index = readFileSync(indexPath(paths, region.pack, false));
    return Array.from({ length: index.length / RECORD_BYTES }, (_, i) => pieceOf(index, i * RECORD_BYTES));
  };
  const written = () => readFileSync(packPath(paths, region.pack)).subarray(10);
  t.after(() => writer.close());
  return { receiver, noted, written, writer };
}

test('bytes are written as they are received and recorded a MiB at a time', (t) => {
  const bytes = noise(1, 2_500_000);
  const { receiver, noted, written } = begin(t, bytes.length);
  for (let at = 0; at < bytes.length; at += 60_000) receiver.write(bytes.subarray(at, at + 60_000));
  assert.ok(written().equals(bytes));
  assert.equal(noted().length, 2);
  receiver.note();
  receiver.note();
  const pieces = noted();
  assert.equal(pieces.length, 3);
  let at = 0;
  for (const piece of pieces) {
    const end = at + piece.lengthBytes;
    assert.ok(piece.raw);
    assert.deepEqual(piece.blobDigest, sha256('blob'));
    assert.deepEqual([piece.packOffset, piece.blobStart, piece.blobLength], [10 + at, 1000 + at, end - at]);
    assert.equal(piece.crc32, crc32(bytes.subarray(at, end)));
    at = end;
  }
  assert.equal(at, bytes.length);
});

test('bytes that have waited half a second are recorded, however few', (t) => {
  const { receiver, noted } = begin(t, 100);
  const began = performance.now();
  receiver.tick(began + 10_000);
  receiver.write(Buffer.from('abc'));
  receiver.tick(began + 499);
  assert.equal(noted().length, 0);
  receiver.tick(performance.now() + 500);
  assert.deepEqual(
    noted().map(({ lengthBytes }) => lengthBytes),
    [3],
  );
  receiver.tick(performance.now() + 10_000);
  assert.equal(noted().length, 1);
});

test('the error of a record is thrown with the next bytes and at the end', (t) => {
  const { receiver, writer } = begin(t, 100);
  receiver.write(Buffer.from('abc'));
  writer.close();
  receiver.tick(performance.now() + 500);
  assert.throws(() => receiver.write(Buffer.from('def')), { code: 'store-broken' });
  assert.throws(() => receiver.note(), { code: 'store-broken' });
});
