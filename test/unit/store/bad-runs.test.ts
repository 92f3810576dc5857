import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { markBad, readBadRuns } from '../../../src/store/bad-runs.js';
import { badRunsPath, newPackId } from '../../../src/store/paths.js';
import { overlapsRun } from '../../../src/store/runs.js';
import { freshStore, seededRandom, syncedBy } from './support.js';

test('a pack without a list has no bad run', (t) => {
  const bad = readBadRuns(freshStore(t), newPackId());
  assert.equal(overlapsRun(bad, 0, Number.MAX_SAFE_INTEGER), false);
});

test('a run is bad if one of its bytes was marked', (t) => {
  const paths = freshStore(t);
  const id = newPackId();
  markBad(paths, id, [{ offset: 100, lengthBytes: 10 }]);
  const bad = readBadRuns(paths, id);
  const cases: [number, number, boolean][] = [
    [90, 10, false],
    [90, 11, true],
    [100, 1, true],
    [109, 1, true],
    [110, 5, false],
    [0, 1000, true],
  ];
  for (const [offset, length, expected] of cases)
    assert.equal(overlapsRun(bad, offset, offset + length), expected, `${offset}`);
  const expected = Buffer.alloc(16);
  expected.writeUInt32LE(100, 0);
  expected.writeUInt32LE(10, 8);
  assert.deepEqual(readFileSync(badRunsPath(paths, id)), expected);
});

test('markBad syncs the list and its directory', {
  skip: process.platform === 'win32' && 'no directory is synced',
}, (t) => {
  const paths = freshStore(t);
  const id = newPackId();
  const synced = syncedBy(t, () => markBad(paths, id, [{ offset: 100, lengthBytes: 10 }]));
  assert.deepEqual(synced, [badRunsPath(paths, id), paths.packs]);
});

test('many runs, in any order and overlapping, give the same answers as a list of bytes', (t) => {
  const paths = freshStore(t);
  const id = newPackId();
  const random = seededRandom(7);
  const bytes = new Uint8Array(2000);
  const runs = Buffer.alloc(60 * 16);
  for (let i = 0; i < 60; i++) {
    const start = Math.floor(random() * 1950);
    const length = Math.floor(random() * 30);
    runs.writeUInt32LE(start, i * 16);
    runs.writeUInt32LE(length, i * 16 + 8);
    bytes.fill(1, start, start + length);
  }
  writeFileSync(badRunsPath(paths, id), runs);
  const bad = readBadRuns(paths, id);
  for (let i = 0; i < 2000; i++) {
    const start = Math.floor(random() * 1950);
    const length = 1 + Math.floor(random() * 40);
    assert.equal(overlapsRun(bad, start, start + length), bytes.subarray(start, start + length).includes(1));
  }
});

test('a malformed list makes the whole pack bad', (t) => {
  const paths = freshStore(t);
  const cut = newPackId();
  markBad(paths, cut, [{ offset: 5, lengthBytes: 5 }]);
  appendFileSync(badRunsPath(paths, cut), 'x');
  const impossible = newPackId();
  writeFileSync(badRunsPath(paths, impossible), Buffer.alloc(16, 0xff));
  const long = newPackId();
  writeFileSync(badRunsPath(paths, long), Buffer.alloc(2 ** 20 + 16));
  for (const id of [cut, impossible, long]) {
    const bad = readBadRuns(paths, id);
    assert.ok(overlapsRun(bad, 0, 1));
    assert.ok(overlapsRun(bad, 2 ** 50, 2 ** 50 + 1));
  }
});
