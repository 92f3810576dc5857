import assert from 'node:assert/strict';
import { readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { type IndexedPack, IndexScan, listIndexedPacks } from '../../../src/store/index-files.js';
import { MAX_BAD_RECORDS, RECORD_BYTES } from '../../../src/store/index-format.js';
import { sealPack } from '../../../src/store/pack-sync.js';
import { indexPath, type StorePaths } from '../../../src/store/paths.js';
import { freshStore, writePack } from './support.js';

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
