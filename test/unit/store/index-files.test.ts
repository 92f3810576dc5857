import assert from 'node:assert/strict';
import { unlinkSync } from 'node:fs';
import { test } from 'node:test';
import {
  allocateIndexBlock,
  type IndexedPack,
  listIndexedPacks,
  scanIndexFile,
} from '../../../src/store/index-files.js';
import { RECORD_BYTES } from '../../../src/store/index-format.js';
import { sealPack } from '../../../src/store/pack-sync.js';
import { indexPath, type StorePaths } from '../../../src/store/paths.js';
import { freshStore, writePack } from './support.js';

function countRecords(paths: StorePaths, pack: IndexedPack, block: Buffer): number {
  let count = 0;
  scanIndexFile(
    paths,
    pack,
    block,
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

test('an index that was sealed since it was listed is found, and one that is gone has no records', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const [pack] = listIndexedPacks(paths);
  await sealPack(paths, id);
  assert.equal(countRecords(paths, pack!, allocateIndexBlock()), 2);
  unlinkSync(indexPath(paths, id, true));
  assert.equal(countRecords(paths, pack!, allocateIndexBlock()), 0);
});
