import assert from 'node:assert/strict';
import fs, { appendFileSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ExtentList, overlapsRun } from '../../../src/store/extents.js';
import { encodeLayerRecord, readLayerRecord } from '../../../src/store/layer-record.js';
import { lookUp } from '../../../src/store/look-up.js';
import { markBad, readBadRuns, removePack, sealPack, syncPacks } from '../../../src/store/pack-files.js';
import {
  badRunsPath,
  layerRecordPath,
  newPackId,
  packPath,
  type StorePaths,
} from '../../../src/store/paths.js';
import { digestOf, freshStore, seededRandom, sha256, syncedBy, writePack } from './support.js';

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

/** From now on each sync of a file does what `sync` does. */
async function replaceSync(t: TestContext, path: string, sync: () => Promise<void>) {
  const file = await open(path);
  const handle = Object.getPrototypeOf(file) as { sync: () => Promise<void> };
  await file.close();
  return t.mock.method(handle, 'sync', sync).mock;
}

test('a sealed pack has its index under the final name', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  await sealPack(paths, id);
  assert.deepEqual(readdirSync(paths.packs).sort(), [`${id}.idx`, `${id}.pack`]);
});

test('unsealed packs are synced, sealed ones are not synced again', async (t) => {
  const paths = freshStore(t);
  const sealed = writePack(paths, [Buffer.from('x')]).id;
  const unsealed = writePack(paths, [Buffer.from('y')]).id;
  await sealPack(paths, sealed);
  const mock = await replaceSync(t, paths.root, () => Promise.resolve());
  await syncPacks(paths, [sealed]);
  assert.equal(mock.callCount(), 0);
  await syncPacks(paths, [sealed, unsealed]);
  assert.equal(mock.callCount(), process.platform === 'win32' ? 1 : 2);
});

test('a sync that failed is not repeated: the pack is lost', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const mock = await replaceSync(t, join(paths.packs, `${id}.pack`), () =>
    Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })),
  );
  await assert.rejects(syncPacks(paths, [id]), { code: 'store-broken' });
  mock.mockImplementation(() => Promise.resolve());
  await assert.rejects(syncPacks(paths, [id]), {
    code: 'store-broken',
    message: /was not written to the disk/,
  });
  await assert.rejects(sealPack(paths, id), { code: 'store-broken' });
  assert.equal(mock.callCount(), 1);
});

/** The module as another process has it, which does not know what this one remembers. */
async function inAnotherProcess(): Promise<typeof import('../../../src/store/pack-files.js')> {
  const url = new URL('../../../src/store/pack-files.js?another', import.meta.url);
  return (await import(url.href)) as typeof import('../../../src/store/pack-files.js');
}

const REFUSED = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));

/** Whether anybody finds a content in a pack of the store. */
function isFound(paths: StorePaths, content: string): boolean {
  const wanted = { digests: sha256(content), sizeBytes: Float64Array.of(content.length) };
  return lookUp(paths, { digests: [wanted], blobs: [] }).found[0]!.pack[0]! >= 0;
}

for (const [what, at] of [
  ['pack', 1],
  ['index', 2],
  ['directory', 3],
] as const) {
  test(`of a pack whose ${what} did not get onto the disk nothing is believed, by any process`, {
    skip: at === 3 && process.platform === 'win32' && 'no directory is synced',
  }, async (t) => {
    const paths = freshStore(t);
    const { id } = writePack(paths, [Buffer.from('content')]);
    const diffId = digestOf('content');
    const extents = new ExtentList();
    extents.push(id, 0, 7);
    writeFileSync(layerRecordPath(paths, diffId), encodeLayerRecord({ diffId, extents }));
    assert.ok(isFound(paths, 'content') && readLayerRecord(paths, diffId) !== undefined);
    const mock = await replaceSync(t, paths.root, () => Promise.resolve());
    mock.mockImplementationOnce(REFUSED, at - 1);
    await assert.rejects(sealPack(paths, id), { code: 'store-broken' });
    assert.equal(mock.callCount(), at);
    assert.equal(isFound(paths, 'content'), false);
    assert.equal(readLayerRecord(paths, diffId), undefined);
    const another = await inAnotherProcess();
    await assert.rejects(another.sealPack(paths, id), { message: /was not written to the disk/ });
    assert.equal(mock.callCount(), at, 'no sync is tried again');
  });
}

test('a pack whose sync failed on a full disk is lost to all processes', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('content')]);
  const mock = await replaceSync(t, paths.root, () =>
    Promise.reject(Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })),
  );
  const write = t.mock.method(fs, 'writeSync', () => {
    throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  });
  syncBuiltinESMExports();
  await assert.rejects(sealPack(paths, id), { code: 'store-full' });
  write.mock.restore();
  syncBuiltinESMExports();
  markBad(paths, id, [{ offset: 0, lengthBytes: 1 }]);
  const another = await inAnotherProcess();
  await assert.rejects(another.sealPack(paths, id), { message: /was not written to the disk/ });
  assert.equal(mock.callCount(), 1);
});

test('if one of two concurrent syncs of a pack fails, both count as failed', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('content')]);
  const mock = await replaceSync(t, paths.root, () => Promise.resolve());
  mock.mockImplementationOnce(REFUSED, 0);
  mock.mockImplementationOnce(() => sleep(20), 1);
  const both = await Promise.allSettled([1, 2].map(() => syncPacks(paths, [id])));
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.equal(mock.callCount(), 2);
});

test('a pack that cannot be opened for a moment is not lost', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('content')]);
  const [path, aside] = [packPath(paths, id), join(paths.root, 'aside')];
  renameSync(path, aside);
  await assert.rejects(sealPack(paths, id), { code: 'store-broken', message: /is not there/ });
  renameSync(aside, path);
  await sealPack(paths, id);
  assert.ok(isFound(paths, 'content'));
});

test('removing a pack deletes all of its files, and may be repeated', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  markBad(paths, id, [{ offset: 0, lengthBytes: 1 }]);
  await removePack(paths, id);
  await removePack(paths, id);
  assert.deepEqual(readdirSync(paths.packs), []);
});
