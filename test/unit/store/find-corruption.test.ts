import assert from 'node:assert/strict';
import fs, { existsSync, readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { test } from 'node:test';
import { ExtentList } from '../../../src/store/extents.js';
import { findCorruption } from '../../../src/store/find-corruption.js';
import { encodeContent, RECORD_BYTES } from '../../../src/store/index-format.js';
import { PackReader } from '../../../src/store/pack-reader.js';
import { badRunsPath, indexPath, packPath } from '../../../src/store/paths.js';
import { flipByte } from '../../support/packs.js';
import { freshStore, sha256, writePack } from './support.js';

test('damage is found on a full disk, which cannot record it', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('first'), Buffer.from('second')]);
  flipByte(packPath(paths, id), 7);
  const extents = new ExtentList();
  extents.push(id, 0, 11);
  const reader = new PackReader(paths);
  t.after(() => reader.close());
  const write = t.mock.method(fs, 'writeSync', () => {
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  });
  syncBuiltinESMExports();
  try {
    assert.deepEqual(findCorruption(paths, reader, extents), [{ start: 5, end: 11 }]);
    assert.equal(write.mock.callCount(), 1);
  } finally {
    write.mock.restore();
    syncBuiltinESMExports();
  }
});

test('a content with a wrong stated digest is corrupt only if its piece is', (t) => {
  const paths = freshStore(t);
  const contents = ['first', 'second'].map((text) => Buffer.from(text));
  const { id } = writePack(paths, contents, {}, [contents[0]!, Buffer.from('other!')]);
  const extents = new ExtentList();
  extents.push(id, 0, 11);
  const reader = new PackReader(paths);
  t.after(() => reader.close());
  const stated = readFileSync(indexPath(paths, id, false));
  assert.deepEqual(findCorruption(paths, reader, extents), []);
  assert.ok(!existsSync(badRunsPath(paths, id)));
  // From now on nobody believes what the TOC said.
  const record = Buffer.alloc(RECORD_BYTES);
  encodeContent(record, 0, sha256('second'), 0, 5, 6);
  const corrected = Buffer.concat([stated.subarray(0, 2 * RECORD_BYTES), record]);
  assert.deepEqual(readFileSync(indexPath(paths, id, false)), corrected);
  flipByte(packPath(paths, id), 7);
  assert.deepEqual(findCorruption(paths, reader, extents), [{ start: 5, end: 11 }]);
  assert.ok(existsSync(badRunsPath(paths, id)));
});
