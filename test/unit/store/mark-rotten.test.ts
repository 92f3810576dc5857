import assert from 'node:assert/strict';
import { existsSync, truncateSync, unlinkSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { overlapsBad, readBadRuns } from '../../../src/store/bad-runs.js';
import { ExtentList } from '../../../src/store/extents.js';
import { lookUp } from '../../../src/store/look-up.js';
import { markRotten } from '../../../src/store/mark-rotten.js';
import { PackReader } from '../../../src/store/pack-reader.js';
import { sealPack } from '../../../src/store/pack-sync.js';
import { badRunsPath, newPackId, type PackId, packPath, type StorePaths } from '../../../src/store/paths.js';
import { flipByte } from '../../support/packs.js';
import { freshStore, randomBytes, seededRandom, sha256, writePack } from './support.js';

const random = seededRandom(3);
const [A, B, C] = [randomBytes(random, 1000), randomBytes(random, 2000), randomBytes(random, 500)] as const;

/** A sealed pack of one piece that holds A, B and C. */
async function sealed(t: TestContext): Promise<{ paths: StorePaths; id: PackId }> {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A, B, C]);
  await sealPack(paths, id);
  return { paths, id };
}

function mark(paths: StorePaths, runs: readonly (readonly [id: PackId, offset: number, length: number])[]) {
  const suspects = new ExtentList();
  for (const run of runs) suspects.push(...run);
  const reader = new PackReader(paths);
  markRotten(paths, reader, suspects);
  reader.close();
}

/** Which of A, B and C a later pull finds. */
function found(paths: StorePaths): boolean[] {
  const digests = Buffer.concat([A, B, C].map(sha256));
  const sizeBytes = Float64Array.of(A.length, B.length, C.length);
  const answer = lookUp(paths, { digests: [{ digests, sizeBytes }], blobs: [] });
  return Array.from(answer.found[0]!.pack, (pack) => pack >= 0);
}

test('bytes that are what their record says are not marked, whoever suspects them', async (t) => {
  const { paths, id } = await sealed(t);
  mark(paths, [[id, 0, 3500]]);
  assert.ok(!existsSync(badRunsPath(paths, id)));
  assert.deepEqual(found(paths), [true, true, true]);
});

test('of a piece that has rotted only what was suspected is marked', async (t) => {
  const { paths, id } = await sealed(t);
  flipByte(packPath(paths, id), A.length + 5);
  mark(paths, [[id, A.length, B.length]]);
  const bad = readBadRuns(paths, id);
  assert.deepEqual([...bad.start, ...bad.end], [1000, 3000]);
  assert.deepEqual(found(paths), [true, false, true]);
});

test('bytes that a pack has lost are marked', async (t) => {
  const { paths, id } = await sealed(t);
  truncateSync(packPath(paths, id), A.length + 5);
  mark(paths, [[id, A.length, B.length]]);
  assert.ok(overlapsBad(readBadRuns(paths, id), A.length, 1));
  assert.deepEqual(found(paths), [true, false, false]);
});

test('a pack that is gone is not marked, and others are nevertheless', async (t) => {
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

test('bytes that no record states are not marked', async (t) => {
  const { paths, id } = await sealed(t);
  mark(paths, [[id, 3500, 100]]);
  assert.ok(!existsSync(badRunsPath(paths, id)));
});
