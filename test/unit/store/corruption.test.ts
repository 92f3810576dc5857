import assert from 'node:assert/strict';
import fs, { existsSync, readFileSync, truncateSync, unlinkSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { type TestContext, test } from 'node:test';
import { digestOfBytes } from '../../../src/format/digest.js';
import { findCorruption, markCorrupt } from '../../../src/store/corruption.js';
import { ExtentList, overlapsRun } from '../../../src/store/extents.js';
import { listStore } from '../../../src/store/list.js';
import { lookUp } from '../../../src/store/look-up.js';
import { readBadRuns, sealPack } from '../../../src/store/pack-files.js';
import { encodeContent, RECORD_BYTES } from '../../../src/store/pack-index.js';
import { PackReader } from '../../../src/store/pack-reader.js';
import {
  badRunsPath,
  indexPath,
  newPackId,
  type PackId,
  packPath,
  type StorePaths,
} from '../../../src/store/paths.js';
import { flipByte } from '../../support/packs.js';
import { freshStore, randomBytes, seededRandom, sha256, writePack } from './support.js';

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

const random = seededRandom(3);
const [A, B, C] = [randomBytes(random, 1000), randomBytes(random, 2000), randomBytes(random, 500)] as const;

/** A sealed pack of one piece that holds A, B and C. */
async function sealed(t: TestContext): Promise<{ paths: StorePaths; id: PackId }> {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A, B, C]);
  await sealPack(paths, id);
  return { paths, id };
}

function mark(
  paths: StorePaths,
  runs: readonly (readonly [id: PackId, offset: number, length: number])[],
  blobDigest?: Uint8Array,
) {
  const suspects = new ExtentList();
  for (const run of runs) suspects.push(...run);
  const reader = new PackReader(paths);
  markCorrupt(paths, reader, suspects, blobDigest);
  reader.close();
}

/** Which of A, B and C a later pull finds. */
function found(paths: StorePaths): boolean[] {
  const digests = Buffer.concat([A, B, C].map(sha256));
  const sizeBytes = Float64Array.of(A.length, B.length, C.length);
  const answer = lookUp(paths, { digests: [{ digests, sizeBytes }], blobs: [] });
  return Array.from(answer.found[0]!.pack, (pack) => pack >= 0);
}

test('bytes that match their record are not marked', async (t) => {
  const { paths, id } = await sealed(t);
  mark(paths, [[id, 0, 3500]]);
  assert.ok(!existsSync(badRunsPath(paths, id)));
  assert.deepEqual(found(paths), [true, true, true]);
});

test('of a corrupt piece only the suspect bytes are marked', async (t) => {
  const { paths, id } = await sealed(t);
  flipByte(packPath(paths, id), A.length + 5);
  mark(paths, [[id, A.length, B.length]]);
  const bad = readBadRuns(paths, id);
  assert.deepEqual([...bad], [1000, 3000]);
  assert.deepEqual(found(paths), [true, false, true]);
});

test('missing bytes of a pack are marked', async (t) => {
  const { paths, id } = await sealed(t);
  truncateSync(packPath(paths, id), A.length + 5);
  mark(paths, [[id, A.length, B.length]]);
  assert.ok(overlapsRun(readBadRuns(paths, id), A.length, A.length + 1));
  assert.deepEqual(found(paths), [true, false, false]);
});

test('a missing pack is not marked, but others are', async (t) => {
  const { paths, id } = await sealed(t);
  const lost = writePack(paths, [A]).id;
  unlinkSync(packPath(paths, lost));
  flipByte(packPath(paths, id), 0);
  const never = newPackId();
  mark(paths, [
    [never, 0, 10],
    [lost, 0, 10],
    [id, 0, 10],
  ]);
  assert.deepEqual(
    [never, lost, id].map((pack) => existsSync(badRunsPath(paths, pack))),
    [false, false, true],
  );
});

test('bytes without a record are not marked', async (t) => {
  const { paths, id } = await sealed(t);
  mark(paths, [[id, 3500, 100]]);
  assert.ok(!existsSync(badRunsPath(paths, id)));
});

const OTHER = randomBytes(random, B.length);

/** An open pack of one piece that holds A and B, of which a TOC says that B is OTHER. */
function lied(t: TestContext, blobDigest: Buffer): { paths: StorePaths; id: PackId } {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A, B], { blobDigest }, [A, OTHER]);
  return { paths, id };
}

/** Whether A, B and OTHER are found, and how many pieces of the blob. */
function foundOf(paths: StorePaths, blobDigest: Buffer): { contents: boolean[]; pieces: number } {
  const digests = Buffer.concat([A, B, OTHER].map(sha256));
  const sizeBytes = Float64Array.of(A.length, B.length, B.length);
  const blobs = [{ digest: digestOfBytes(blobDigest), raw: false }];
  const answer = lookUp(paths, { digests: [{ digests, sizeBytes }], blobs });
  return {
    contents: Array.from(answer.found[0]!.pack, (pack) => pack >= 0),
    pieces: answer.resumed.count,
  };
}

test('a wrong stated digest of intact bytes is corrected', (t) => {
  const blob = sha256('blob');
  const { paths, id } = lied(t, blob);
  assert.deepEqual(foundOf(paths, blob), { contents: [true, false, true], pieces: 1 });
  // A chunk of it is enough; what is beside it is not asked.
  mark(paths, [[id, 0, A.length]]);
  assert.deepEqual(foundOf(paths, blob), { contents: [true, false, true], pieces: 1 });
  mark(paths, [[id, A.length + 100, 10]], sha256('another blob'));
  assert.deepEqual(foundOf(paths, blob), { contents: [true, true, false], pieces: 1 });
  assert.ok(!existsSync(badRunsPath(paths, id)));
});

test("a piece that does not match its blob loses the blob's digest", (t) => {
  const blob = sha256('blob');
  const { paths, id } = lied(t, blob);
  assert.equal(listStore({ store: paths.root }).brokenOff.length, 1);
  mark(paths, [[id, A.length, B.length]], blob);
  assert.deepEqual(foundOf(paths, blob), { contents: [true, true, false], pieces: 0 });
  assert.deepEqual(listStore({ store: paths.root }).brokenOff, []);
  assert.ok(!existsSync(badRunsPath(paths, id)));
  // Its crc32 still finds rot.
  flipByte(packPath(paths, id), 5);
  mark(paths, [[id, 0, A.length]]);
  assert.ok(overlapsRun(readBadRuns(paths, id), 0, 1));
});

test('no record of corrupt bytes or in a read-only store is corrected', (t) => {
  const blob = sha256('blob');
  const { paths, id } = lied(t, blob);
  const index = indexPath(paths, id, false);
  const before = readFileSync(index);
  const write = t.mock.method(fs, 'writeSync', () => {
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  });
  syncBuiltinESMExports();
  try {
    mark(paths, [[id, A.length, B.length]], blob);
    assert.equal(write.mock.callCount(), 1);
  } finally {
    write.mock.restore();
    syncBuiltinESMExports();
  }
  flipByte(packPath(paths, id), A.length + 5);
  mark(paths, [[id, A.length, B.length]], blob);
  assert.ok(readFileSync(index).equals(before));
});
