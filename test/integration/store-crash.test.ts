import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { listLayerFiles, readLayerRecord } from '../../src/store/layer-record.js';
import {
  blobPath,
  indexPath,
  layerRecordPath,
  type PackId,
  packPath,
  type StorePaths,
  storePaths,
} from '../../src/store/paths.js';
import {
  buryLeases,
  killEverywhere,
  type Left,
  runWithHook,
  type Step,
  twoAtATime,
} from '../support/crash.js';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from '../support/layout.js';
import { findInPacks, flipByte } from '../support/packs.js';
import { ZPULL } from '../support/programs.js';
import { assertWhole, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const PULL_CHILD = fileURLToPath(new URL('../support/pull-child.js', import.meta.url));

/** The arguments of a process that pulls. */
function pulling(image: string, store: string): string[] {
  return [PULL_CHILD, JSON.stringify({ image, options: { store } })];
}

/** An image of two layers, as `x:it`. */
async function serveImage(t: TestContext) {
  const layout = emptyLayout(t);
  const tars = [tarOf({ one: noise(1, 300_000), two: noise(2, 200_000) }), tarOf({ own: noise(3, 50_000) })];
  await writeTars(t, layout, 'it', tars);
  const { host } = await startSandbox(t, { layout });
  return { layout, host, image: `${host}/x:it` };
}

/** Where a step is in the order of all, before `end`; -1 if it is nowhere. */
function lastBefore(steps: readonly Step[], end: number, operation: string, path: string): number {
  return steps
    .slice(0, end)
    .findLastIndex((step) => step.path === path && step.name.includes(` ${operation} `));
}

/** The packs that the layer records of a store name. */
function packsNamed(store: string): PackId[] {
  const paths = storePaths(store);
  return listLayerFiles(paths).flatMap(({ diffId }) => [...readLayerRecord(paths, diffId)!.extents.packs]);
}

/** A new pack is sealed, then records name it, then the packs go that they named before; each on the disk before the next. */
function assertRewrittenInOrder(steps: readonly Step[], paths: StorePaths, named: readonly PackId[]): void {
  const find = (name: string) => {
    const row = steps.findIndex((step) => step.name === name);
    assert.ok(row >= 0, name);
    return row;
  };
  const sealed = find('main rename to packs/ID.idx 1');
  const id = steps[sealed]!.path.slice(-36, -4) as PackId;
  assert.ok(lastBefore(steps, sealed, 'sync', packPath(paths, id)) > find('worker write packs/ID.pack 1'));
  assert.ok(lastBefore(steps, sealed, 'sync', indexPath(paths, id, false)) >= 0);
  const records = steps.flatMap(({ name }, row) => (name.startsWith('main rename to layers/') ? [row] : []));
  assert.equal(records.length, 2);
  assert.ok(lastBefore(steps, records[0]!, 'sync', paths.packs) > sealed);
  for (const row of records)
    assert.match(
      `${steps[row - 1]!.name} ${steps[row + 1]!.name}`,
      /sync layers.HEX.tmp \d+ main sync v1.layers/,
    );
  const old = named.flatMap((pack) => [packPath(paths, pack), indexPath(paths, pack, true)]);
  const gone = steps.findIndex(({ name, path }) => / unlink /.test(name) && old.includes(path));
  assert.ok(gone > records.at(-1)! + 1);
}

test('all data is synced before the name that promises it, and the name before the next', async (t) => {
  const { layout, image } = await serveImage(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const { steps, end } = await runWithHook(t, {
    store,
    log: join(directory, 'log'),
    args: pulling(image, store),
  });
  assert.equal(end, 0);
  const paths = storePaths(store);
  const published: number[] = [];
  for (const { diffId } of (await pull(image, { store })).result.layers) {
    const record = readLayerRecord(paths, diffId as never)!;
    const path = layerRecordPath(paths, record.diffId);
    const named = steps.findIndex((step) => step.path === path && step.name.includes(' rename to '));
    for (const pack of record.extents.packs) {
      // Another layer may sync the same pack again in between.
      const directory = lastBefore(steps, named, 'sync', paths.packs);
      const synced = lastBefore(steps, directory, 'sync', packPath(paths, pack));
      const opened = lastBefore(steps, named, 'open', packPath(paths, pack));
      assert.ok(opened >= 0 && synced > opened, `${pack} is synced, and then the directory of packs`);
    }
    const temporary = steps.findLastIndex(
      (step, at) => at < named && step.path.startsWith(`${path}.`) && step.name.includes(' sync '),
    );
    assert.ok(temporary >= 0, 'the record is synced under its temporary name');
    const directorySynced = steps.findIndex((step, at) => at > named && step.path === paths.layers);
    assert.match(steps[directorySynced]!.name, / sync /);
    published.push(directorySynced);
  }
  const imageNamed = steps.findIndex(({ name }) => name.startsWith('main rename to images/'));
  assert.ok(imageNamed > Math.max(...published), 'the image comes after its layers');
  const blob = blobPath(paths, readManifest(layout, 'it').config.digest as never);
  const blobSynced = lastBefore(steps, imageNamed, 'sync', blob);
  assert.ok(blobSynced >= 0 && lastBefore(steps, imageNamed, 'sync', paths.blobs) > blobSynced);
  assert.match(steps[imageNamed + 1]!.name, /^main sync v1\/images/);
  for (const path of [store, join(store, 'v1'), dirname(paths.blobs)])
    assert.ok(lastBefore(steps, imageNamed, 'sync', path) >= 0, `${path} has its names for good`);
});

test('packs are synced once a layer and once when they are sealed', async (t) => {
  const { image } = await serveImage(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const log = join(directory, 'log');
  const { steps } = await runWithHook(t, { store, log, args: pulling(image, store) });
  const syncs = new Map<string, number>();
  for (const { name, path } of steps)
    if (/ sync packs\/ID\.pack/.test(name)) syncs.set(path, (syncs.get(path) ?? 0) + 1);
  assert.ok(syncs.size > 0);
  for (const [path, count] of syncs) assert.ok(count <= 3, `${path}: ${count}`);
});

test('a kill at any step of a pull leaves a store that lists what verifies, and the next one completes', async (t) => {
  const { image } = await serveImage(t);
  const directory = temporaryDirectory(t);
  const { steps, kills, left } = await killEverywhere(t, (store) => pulling(image, store));
  assert.ok(kills.length > 35, `${kills.length}`);
  const check = async ({ step, store, isNew }: Left) => {
    buryLeases(store);
    const listed = listStore({ store }).images.length;
    const held = assertWhole(store, step);
    assert.ok(listed === 0 || held === 2, step);
    if (!isNew) return;
    await pull(image, { store });
    assert.equal(assertWhole(store, step), 2);
    assert.equal(listStore({ store }).images.length, 1, step);
  };
  await twoAtATime(left, check);
  const published = kills.filter((step) => /^main rename to (layers|packs|images)/.test(step));
  assert.ok(published.length >= 3 && steps.length > kills.length);
  await twoAtATime(published, async (killAt, row) => {
    const store = join(directory, String(row));
    const log = join(directory, `log-${row}`);
    assert.equal((await runWithHook(t, { store, log, args: pulling(image, store), killAt })).end, 'SIGKILL');
    await check({ step: killAt, store, isNew: true });
  });
});

test('a kill at any step of a prune loses nothing that is needed, and the next one completes', async (t) => {
  const { host, layout, image } = await serveImage(t);
  await writeTars(t, layout, 'all', [
    tarOf({ o: noise(1, 300_000), t: noise(2, 200_000), x: noise(9, 3e6) }),
  ]);
  const directory = temporaryDirectory(t);
  const prepared = join(directory, 'prepared');
  await pull(`${host}/x:all`, { store: prepared });
  await pull(image, { store: prepared });
  await removeImage({ store: prepared, image: `${host}/x:all` });
  const pruning = (store: string) => [...ZPULL, 'store', 'prune', '--store', store];
  const named = packsNamed(prepared);
  const { store: pruned, steps, kills, left } = await killEverywhere(t, pruning, prepared);
  assertRewrittenInOrder(steps, storePaths(pruned), named);
  assert.ok(steps.some(({ name }) => name.startsWith('worker write packs/ID.pack')));
  assert.ok(kills.length > 15, `${kills.length}`);
  const check = async ({ step, store, isNew }: Left) => {
    buryLeases(store);
    assert.equal(listStore({ store }).images.length, 1, step);
    assertWhole(store, step);
    if (!isNew) return;
    assert.equal((await pruneStore({ store })).stoppedBy, null);
    assert.equal(assertWhole(store, step), 2);
    const again = await pruneStore({ store });
    assert.deepEqual([again.freedBytes, again.rewrittenPacks], [0, 0], step);
  };
  await twoAtATime(left, check);
  const killAt = kills.find((step) => step.startsWith('main rename to layers'));
  const store = join(directory, 'killed');
  cpSync(prepared, store, { recursive: true });
  const log = join(directory, 'log');
  assert.equal((await runWithHook(t, { store, log, args: pruning(store), killAt: killAt! })).end, 'SIGKILL');
  await check({ step: killAt!, store, isNew: true });
});

test('a kill at any step of rm leaves the complete image or none', async (t) => {
  const { image } = await serveImage(t);
  const prepared = join(temporaryDirectory(t), 'prepared');
  await pull(image, { store: prepared });
  const args = (store: string) => [...ZPULL, 'store', 'rm', image, '--store', store];
  const { left } = await killEverywhere(t, args, prepared);
  const changes = left.filter(({ step }) => !step.startsWith('main mkdir'));
  assert.deepEqual(
    changes.map(({ step }) => step),
    ['main unlink images/HEX.json 1', 'main sync v1/images 1'],
  );
  const listed: number[] = [];
  for (const { store, step } of changes) {
    const { images } = listStore({ store });
    listed.push(images.length);
    assert.equal(assertWhole(store, step), 2);
    const { result } = await pull(image, { store });
    assert.equal(result.fetchedBytes, 0);
    assert.equal(listStore({ store }).images.length, 1, step);
  }
  assert.deepEqual(listed, [1, 0]);
});

test('a kill at any step of verify leaves damage that the next one finds and a pull repairs', async (t) => {
  const { image } = await serveImage(t);
  const prepared = join(temporaryDirectory(t), 'prepared');
  await pull(image, { store: prepared });
  const { path, at } = findInPacks(prepared, noise(2, 200_000));
  flipByte(path, at);
  const args = (store: string) => [...ZPULL, 'store', 'verify', '--store', store];
  const { kills, left } = await killEverywhere(t, args, prepared, 6);
  assert.ok(kills.includes('main rename to layers/HEX.damaged 1') && kills.length > 4, `${kills}`);
  for (const { store, step } of left.filter(({ isNew }) => isNew)) {
    buryLeases(store);
    const { damaged } = await verifyStore({ store });
    assert.equal(damaged.length, 1, step);
    assert.deepEqual(listStore({ store }).images, [], step);
    const { result } = await pull(image, { store });
    assert.ok(result.fetchedBytes > 0 && result.fetchedBytes < 250_000, `${step}: ${result.fetchedBytes}`);
    assert.equal(assertWhole(store, step), 2);
    assert.equal(listStore({ store }).images.length, 1, step);
  }
});
