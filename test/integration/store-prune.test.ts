import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { pidNamespaceId } from '../../src/files/process-id.js';
import { makeScratch } from '../../src/files/scratch.js';
import { parseDigest } from '../../src/format/digest.js';
import { createCounters } from '../../src/pool/shared-memory.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import { readLayerRecord } from '../../src/store/layer-record.js';
import { Lease } from '../../src/store/leases.js';
import { damagedRecordPath, type PackId, storePaths } from '../../src/store/paths.js';
import { FILE } from '../support/file-fixtures.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { findInPacks, flipByte, packFiles } from '../support/packs.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { fillDisk, skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;
const NOTHING = { removedLayers: 0, removedPacks: 0, removedBlobs: 0, rewrittenPacks: 0, stoppedBy: null };
/** Metadata, frames between contents and the like: more than these few files have. */
const SLACK_BYTES = 20_000;

/** Twelve files of half a MiB; the fifth is also in the image `part`, with one of its own. */
const FILES = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`f${i}`, noise(i + 1, MIB / 2)]));
const FIFTH = FILES['f5']!;
const OWN = noise(99, 100_000);

/** A store with the images `all` and `part`, pulled in this order. */
const pulled = (async () => {
  const store = temporaryDirectory(FILE);
  const layout = emptyLayout(FILE);
  await writeTars(FILE, layout, 'all', [tarOf(FILES)]);
  await writeTars(FILE, layout, 'part', [tarOf({ fifth: FIFTH, own: OWN })]);
  const { host } = await startSandbox(FILE, { layout });
  const [all, part] = [`${host}/x:all`, `${host}/x:part`];
  await pull(all, { store });
  const { result } = await pull(part, { store });
  assert.ok(result.reusedBytes >= FIFTH.length);
  return { store, all, part, host, layout, partDiffId: parseDigest(result.layers[0]!.diffId, 'DiffID') };
})();

/** A copy of that store. */
async function allAndPart(t: TestContext, store = temporaryDirectory(t)) {
  const kept = await pulled;
  cpSync(kept.store, store, { recursive: true, preserveTimestamps: true });
  return { ...kept, store };
}

/** Room that the store's packs take. */
function packBytes(store: string): number {
  return packFiles(store, '').reduce((sum, path) => sum + statSync(path).blocks * 512, 0);
}

/** Makes files look as if they had last been written so long ago. */
function age(paths: readonly string[], ms: number): void {
  const then = (Date.now() - ms) / 1000;
  for (const path of paths) utimesSync(path, then, then);
}

function filesOf(store: string): string[] {
  const { packs, layers, images, blobs } = storePaths(store);
  return [packs, layers, images, blobs].flatMap((path) => readdirSync(path).map((name) => join(path, name)));
}

test('data that images need stays, and a prune without garbage frees nothing', async (t) => {
  const { store } = await allAndPart(t);
  await pruneStore({ store });
  const before = filesOf(store).sort();
  assert.deepEqual(await pruneStore({ store }), { freedBytes: 0, ...NOTHING });
  assert.deepEqual(filesOf(store).sort(), before);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
});

test('a dry run deletes nothing, and tells what the prune then does', async (t) => {
  const { store, all, part } = await allAndPart(t);
  for (const image of [all, part]) {
    await removeImage({ store, image });
    const before = filesOf(store).sort();
    const { freedBytes, ...counts } = await pruneStore({ store, dryRun: true });
    assert.deepEqual(filesOf(store).sort(), before);
    const done = await pruneStore({ store });
    assert.deepEqual(counts, { ...NOTHING, ...counts });
    assert.deepEqual({ ...done, freedBytes: 0 }, { ...counts, freedBytes: 0 });
    const difference = Math.abs(done.freedBytes - freedBytes);
    assert.ok(freedBytes > 0 && difference < SLACK_BYTES, `${freedBytes} and ${done.freedBytes}`);
  }
});

test('a prune of a store without images leaves nothing', async (t) => {
  const { store, all, part } = await allAndPart(t);
  await removeImage({ store, image: all });
  await removeImage({ store, image: part });
  const taken = packBytes(store);
  const result = await pruneStore({ store });
  assert.equal(result.removedLayers, 2);
  assert.ok(result.freedBytes >= taken, `${result.freedBytes} of ${taken}`);
  assert.deepEqual(filesOf(store), []);
});

test('a pack of which little is needed is rewritten, and its contents are still found', async (t) => {
  const { store, all, part } = await allAndPart(t);
  await removeImage({ store, image: all });
  const before = packBytes(store);
  const result = await pruneStore({ store });
  assert.equal(result.removedLayers, 1);
  assert.ok(result.rewrittenPacks > 1);
  const after = packBytes(store);
  assert.ok(after < MIB, `${after}`);
  assert.ok(result.freedBytes >= before - after, `${result.freedBytes}`);
  assert.equal(packFiles(store, '.pack').length, 1);
  assert.deepEqual(await verifyStore({ store }), { checked: 1, damaged: [] });
  const held = await pull(part, { store, policy: 'never' });
  assertProven(held.result);
  const again = await pull(all, { store });
  // By its digest, or by the pieces that lie in it whole.
  const { reusedBytes, resumedBytes, fetchedBytes } = again.result;
  assert.ok(reusedBytes + resumedBytes > FIFTH.length / 2, `${reusedBytes} and ${resumedBytes}`);
  assert.ok(fetchedBytes < 11.5 * FIFTH.length, `${fetchedBytes}`);
  assertProven(again.result);
});

test('a pack that a record names stays, even if the prune fails after the rename of the record', {
  skip: process.platform === 'win32' && 'no directory is synced',
}, async (t) => {
  const { store, all, partDiffId } = await allAndPart(t);
  await removeImage({ store, image: all });
  const { layers } = storePaths(store);
  const { open } = promises;
  const mock = t.mock.method(promises, 'open', async (path: string, flags: string) => {
    const file = await open(path, flags);
    if (path === layers) file.sync = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
    return file;
  });
  syncBuiltinESMExports();
  await assert.rejects(pruneStore({ store }), { code: 'store-broken', message: /could not sync .*layers/ });
  mock.mock.restore();
  syncBuiltinESMExports();
  assert.ok(readLayerRecord(storePaths(store), partDiffId) !== undefined);
});

test('small packs are merged with their records of pieces and contents', async (t) => {
  const layout = emptyLayout(t);
  const names = ['a', 'b', 'c'];
  for (const [i, name] of names.entries())
    await writeTars(t, layout, name, [tarOf({ [name]: noise(i, 50_000) })]);
  await writeTars(t, layout, 'abc', [
    tarOf(Object.fromEntries(names.map((name, i) => [`${name}2`, noise(i, 50_000)]))),
  ]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  for (const name of names) await pull(`${host}/x:${name}`, { store });
  const before = packFiles(store, '.pack').length;
  assert.ok(before >= 3);
  assert.equal((await pruneStore({ store })).rewrittenPacks, before);
  assert.equal(packFiles(store, '.pack').length, 1);
  assert.equal((await pruneStore({ store })).rewrittenPacks, 0, 'a single one stays as it is');
  assert.deepEqual(await verifyStore({ store }), { checked: 3, damaged: [] });
  const { result } = await pull(`${host}/x:abc`, { store });
  assert.equal(result.reusedBytes, 150_000);
  assertProven(result);
  const { path, at } = findInPacks(store, noise(1, 50_000));
  flipByte(path, at);
  assert.deepEqual((await verifyStore({ store })).damaged.map((each) => each.path).sort(), ['b', 'b2']);
});

test('leftovers of an interrupted pull are deleted unless they are too young', async (t) => {
  const { store, host } = await allAndPart(t);
  await removeImage({ store, image: `${host}/x:all` });
  await removeImage({ store, image: `${host}/x:part` });
  await pruneStore({ store });
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf(FILES)]);
  const slow = await startSandbox(t, { layout, rateBytes: 5 * MIB });
  const controller = new AbortController();
  const onEvent = (event: { event: string; writtenBytes?: number }) => {
    if ((event.writtenBytes ?? 0) > MIB) controller.abort();
  };
  await failureOf(pull(`${slow.host}/x:it`, { store, signal: controller.signal, onEvent }));
  writeFileSync(join(storePaths(store).blobs, 'x.0123456789abcdef.tmp'), 'x');
  assert.deepEqual(await pruneStore({ store, olderThanMs: 3_600_000 }), { freedBytes: 0, ...NOTHING });
  assert.equal(listStore({ store }).brokenOff.length, 1);
  age(filesOf(store), 3_700_000);
  const result = await pruneStore({ store, olderThanMs: 3_600_000 });
  assert.ok(result.freedBytes > MIB && result.removedBlobs > 0);
  assert.deepEqual(filesOf(store), []);
});

test('a process that uses the store stops a prune; the lease of a dead one is removed', async (t) => {
  const { store, all } = await allAndPart(t);
  const paths = storePaths(store);
  await removeImage({ store, image: all });
  const lease = new Lease(paths, 'export');
  t.after(() => lease.close());
  const before = filesOf(store);
  assert.deepEqual(await pruneStore({ store }), { freedBytes: 0, ...NOTHING, stoppedBy: 'export' });
  assert.deepEqual(filesOf(store), before);
  // What a process leaves that was killed in another container.
  const [name] = readdirSync(paths.leases);
  lease.close();
  const left = join(paths.leases, name!.replace(/[0-9a-f]*$/, ''));
  writeFileSync(left, '');
  age([left], 20_000);
  const { stoppedBy, removedLayers } = await pruneStore({ store });
  assert.deepEqual([stoppedBy, removedLayers], [null, 1]);
  assert.deepEqual(readdirSync(paths.leases), []);
});

test('the intact extents and the record of a damaged layer stay until it is repaired', async (t) => {
  const { store, all, part, partDiffId } = await allAndPart(t);
  await removeImage({ store, image: all });
  const { path, at } = findInPacks(store, OWN);
  flipByte(path, at + 10);
  assert.equal((await verifyStore({ store })).damaged.length, 1);
  await pruneStore({ store });
  const { result } = await pull(part, { store });
  assert.ok(result.fetchedBytes > OWN.length && result.fetchedBytes < OWN.length + SLACK_BYTES);
  assertProven(result);
  const record = damagedRecordPath(storePaths(store), partDiffId);
  assert.ok(existsSync(record));
  await pruneStore({ store });
  assert.equal(existsSync(record), false);
  assert.deepEqual(await verifyStore({ store }), { checked: 1, damaged: [] });
});

test('bad runs stay bad in a rewritten pack', async (t) => {
  const { store, all, part } = await allAndPart(t);
  const { path, at } = findInPacks(store, FIFTH);
  flipByte(path, at + 10);
  assert.equal((await verifyStore({ store })).damaged.length, 2);
  await removeImage({ store, image: all });
  assert.ok((await pruneStore({ store })).rewrittenPacks > 1);
  const { result, events } = await pull(part, { store });
  assert.ok(result.fetchedBytes > FIFTH.length);
  assert.ok(!events.some(({ event }) => event === 'warning'), 'it was not tried first');
  assertProven(result);
});

test('two concurrent prunes lose nothing', async (t) => {
  const { store, all } = await allAndPart(t);
  await removeImage({ store, image: all });
  const results = await Promise.all([pruneStore({ store }), pruneStore({ store })]);
  for (const { stoppedBy } of results) assert.ok(stoppedBy === null || stoppedBy === 'prune');
  assert.deepEqual(
    await verifyStore({ store, image: results.length > 0 ? listStore({ store }).images[0]!.image : '' }),
    {
      checked: 1,
      damaged: [],
    },
  );
});

test('a disk too full to rewrite a pack stops no prune, and unused packs are deleted first', {
  skip: skipUnlessMount(),
}, async (t) => {
  const disk = smallDisk(t, 24 * MIB);
  const { store, all, part, host, layout } = await allAndPart(t, join(disk, 'store'));
  await writeTars(t, layout, 'other', [tarOf({ other: noise(77, 2 * MIB) })]);
  await pull(`${host}/x:other`, { store });
  await removeImage({ store, image: `${host}/x:other` });
  await removeImage({ store, image: all });
  const big = packFiles(store, '.pack').find((path) => statSync(path).size > 5 * MIB)!;
  const filler = fillDisk(disk);
  const setup = { storeRoot: store, counters: createCounters() };
  const pool = await WorkerPool.start({ threads: 1, tasksPerThread: 1, setup, onEvent: () => {} });
  t.after(() => pool.destroy());
  const names = readdirSync(storePaths(store).packs).sort();
  const id = big.slice(-37, -5) as PackId;
  const copying = pool.run({ task: 'copy-runs', sources: [{ pack: id, runs: Float64Array.of(0, MIB) }] });
  assert.equal((await failureOf(copying)).code, 'store-full');
  assert.deepEqual(readdirSync(storePaths(store).packs).sort(), names, 'no unfinished copy stays');
  const first = await pruneStore({ store });
  assert.ok(first.removedPacks > 0);
  assert.ok(first.rewrittenPacks > 1, 'the room of the dead pack was enough');
  rmSync(filler);
  assertProven((await pull(part, { store, policy: 'never' })).result);
});

test('a disk that stays full leaves packs as they are', { skip: skipUnlessMount() }, async (t) => {
  const disk = smallDisk(t, 24 * MIB);
  const { store, all, part } = await allAndPart(t, join(disk, 'store'));
  await removeImage({ store, image: all });
  const packs = packFiles(store, '.pack');
  const filler = fillDisk(disk);
  const { rewrittenPacks, removedLayers, stoppedBy } = await pruneStore({ store });
  assert.deepEqual([rewrittenPacks, removedLayers, stoppedBy], [0, 1, null]);
  assert.deepEqual(packFiles(store, '.pack'), packs);
  rmSync(filler);
  assert.deepEqual(await verifyStore({ store }), { checked: 1, damaged: [] });
  assert.ok((await pruneStore({ store })).rewrittenPacks > 1);
  assertProven((await pull(part, { store, policy: 'never' })).result);
});

test('a prune removes what a killed benchmark left', async (t) => {
  const store = temporaryDirectory(t);
  const child = spawnSync('true');
  const left = join(store, `bench-${child.pid}-${pidNamespaceId()}-aB3dE6`);
  const running = makeScratch(store);
  for (const path of [left, running]) {
    mkdirSync(join(path, 'files'), { recursive: true });
    writeFileSync(join(path, 'files', 'file'), OWN);
  }
  const planned = await pruneStore({ store, dryRun: true });
  assert.ok(planned.freedBytes >= OWN.length && existsSync(left));
  assert.equal((await pruneStore({ store, olderThanMs: 60_000 })).freedBytes, 0);
  assert.equal((await pruneStore({ store })).freedBytes, planned.freedBytes);
  assert.deepEqual([existsSync(left), existsSync(running)], [false, true]);
});
