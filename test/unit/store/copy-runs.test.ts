import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { copyRuns } from '../../../src/store/copy-runs.js';
import { RECORD_BYTES, RECORD_TYPES } from '../../../src/store/pack-index.js';
import { PackReader } from '../../../src/store/pack-reader.js';
import { PackWriter } from '../../../src/store/pack-writer.js';
import { indexPath } from '../../../src/store/paths.js';
import { freshStore, pieceOf, sha256 } from './support.js';

test('stated digests are copied as computed ones if they are right', (t) => {
  const paths = freshStore(t);
  const source = new PackWriter(paths);
  const { pack, ...region } = source.reserve(12);
  const [right, wrong] = [Buffer.from('right!'), Buffer.from('wrong!')];
  const runs = [
    { digest: sha256(right), packOffset: 0, lengthBytes: 6 },
    { digest: sha256('another'), packOffset: 6, lengthBytes: 6 },
  ];
  const piece = pieceOf(Buffer.concat([right, wrong]), 0, runs);
  source.writePiece({ pack, ...region }, { ...piece, contents: { ...piece.contents, stated: true } });
  source.close();
  const reader = new PackReader(paths);
  t.after(() => reader.close());
  const writer = new PackWriter(paths);
  const { pack: copy } = writer.reserve(0);
  for (const _ of copyRuns(paths, reader, writer, [{ pack, runs: Float64Array.of(0, 12) }]));
  writer.close();
  const records = readFileSync(indexPath(paths, copy, false));
  const found = Array.from({ length: records.length / RECORD_BYTES }, (_, row) => {
    const record = records.subarray(row * RECORD_BYTES);
    return [record[4], record.subarray(8, 40).equals(sha256(right))];
  });
  assert.deepEqual(found, [
    [RECORD_TYPES.piece, false],
    [RECORD_TYPES.content, true],
  ]);
});
