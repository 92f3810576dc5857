import assert from 'node:assert/strict';
import { existsSync, rmSync, statSync, truncateSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { verifyStore } from '../../src/api/store.js';
import { parseDigest } from '../../src/format/digest.js';
import { readLayerRecord } from '../../src/store/layer-record.js';
import { damagedRecordPath, layerRecordPath, packPath, storePaths } from '../../src/store/paths.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { findInPacks, flipByte, packFiles } from '../support/packs.js';
import { assertProven, failureOf, holdsLayer, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const ONE = noise(1, 300_000);
const TWO = noise(2, 200_000);
const THREE = noise(3, 400_000);
const OTHER = noise(4, 50_000);
/** Metadata, frames between contents and the like: more than these few files have. */
const SLACK_BYTES = 20_000;

/** A store with the images `one`, of a layer with three files, and `two`, with that layer and another. */
async function twoImages(t: TestContext) {
  const layout = emptyLayout(t);
  const tar = tarOf({ one: ONE, two: TWO, three: THREE });
  await writeTars(t, layout, 'one', [tar]);
  await writeTars(t, layout, 'two', [tar, tarOf({ other: OTHER })]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const images = [`${host}/x:one`, `${host}/x:two`] as const;
  const { result } = await pull(images[1], { store });
  await pull(images[0], { store });
  const [shared, own] = result.layers.map(({ diffId }) => parseDigest(diffId, 'DiffID')) as [never, never];
  return { store, images, shared, own };
}

test('an intact store has no damage, and is not changed', async (t) => {
  const { store, images } = await twoImages(t);
  assert.deepEqual(await verifyStore({ store }), { checked: 2, damaged: [] });
  assert.deepEqual(await verifyStore({ store, image: images[0] }), { checked: 1, damaged: [] });
  assert.deepEqual(packFiles(store, '.bad'), []);
  assert.deepEqual(await verifyStore({ store: temporaryDirectory(t) }), { checked: 0, damaged: [] });
});

test('a changed content is reported with its layer and images; a pull fetches it and no other', async (t) => {
  const { store, images, shared } = await twoImages(t);
  const { path, at } = findInPacks(store, TWO);
  flipByte(path, at + 1000);
  const damaged = [{ diffId: shared, path: 'two', images: [...images] }];
  assert.deepEqual(await verifyStore({ store }), { checked: 2, damaged });
  assert.equal(holdsLayer(store, shared), false);
  assert.ok(existsSync(damagedRecordPath(storePaths(store), shared)));
  const noted = statSync(packFiles(store, '.bad')[0]!).size;
  assert.deepEqual(await verifyStore({ store }), { checked: 2, damaged }, 'it stays known');
  assert.equal(statSync(packFiles(store, '.bad')[0]!).size, noted, 'and is not noted again');
  const { result } = await pull(images[0], { store });
  assert.ok(result.fetchedBytes >= TWO.length && result.fetchedBytes < TWO.length + SLACK_BYTES);
  assertProven(result);
  assert.deepEqual(await verifyStore({ store }), { checked: 2, damaged: [] });
});

test('only the named image is checked', async (t) => {
  const { store, images, own } = await twoImages(t);
  const { path, at } = findInPacks(store, OTHER);
  flipByte(path, at);
  assert.deepEqual((await verifyStore({ store, image: images[0] })).damaged, []);
  const { damaged } = await verifyStore({ store, image: images[1] });
  assert.deepEqual(damaged, [{ diffId: own, path: 'other', images: [images[1]] }]);
});

test('a changed header is damage without a path, and is rewritten from the metadata', async (t) => {
  const { store, images, shared } = await twoImages(t);
  const { path, at } = findInPacks(store, THREE);
  flipByte(path, at - 500);
  const { damaged } = await verifyStore({ store });
  assert.deepEqual(damaged, [{ diffId: shared, images: [...images] }]);
  const { result } = await pull(images[0], { store });
  assert.ok(result.fetchedBytes < SLACK_BYTES, `${result.fetchedBytes}`);
  assertProven(result);
});

test('changed bytes without index records are damage, and are rewritten', async (t) => {
  const { store, images, shared } = await twoImages(t);
  const paths = storePaths(store);
  const { extents } = readLayerRecord(paths, shared)!;
  const last = extents.count - 1; // ends with the end of the archive, which comes from the metadata
  flipByte(packPath(paths, extents.packAt(last)), extents.offsetAt(last) + extents.lengthAt(last) - 600);
  const { damaged } = await verifyStore({ store });
  assert.deepEqual(damaged, [{ diffId: shared, images: [...images] }]);
  assert.equal(holdsLayer(store, shared), false);
  const { result } = await pull(images[0], { store });
  assert.ok(result.fetchedBytes < SLACK_BYTES, `${result.fetchedBytes}`);
  assertProven(result);
});

test('truncated and missing packs are damage', async (t) => {
  const { store, images, shared } = await twoImages(t);
  const { path, at } = findInPacks(store, THREE);
  truncateSync(path, at + 10);
  const cut = await verifyStore({ store, image: images[0] });
  assert.deepEqual(cut.damaged, [{ diffId: shared, path: 'three', images: [...images] }]);
  for (const pack of packFiles(store, '.pack')) rmSync(pack);
  const gone = await verifyStore({ store, image: images[0] });
  assert.deepEqual(gone.damaged, [{ diffId: shared, images: [...images] }]);
  assertProven((await pull(images[0], { store })).result);
});

test('an image with a missing layer record is damaged', async (t) => {
  const { store, images, own } = await twoImages(t);
  rmSync(layerRecordPath(storePaths(store), own));
  const { damaged } = await verifyStore({ store });
  assert.deepEqual(damaged, [{ diffId: own, images: [images[1]] }]);
});

test('an image that the store does not have is not found', async (t) => {
  const { store } = await twoImages(t);
  const error = await failureOf(verifyStore({ store, image: 'alpine' }));
  assert.deepEqual([error.code, error.exitCode], ['image-not-found', 3]);
});

test('an aborted check ends with the reason of its signal as the cause', async (t) => {
  const { store } = await twoImages(t);
  const controller = new AbortController();
  const checking = verifyStore({ store, signal: controller.signal });
  const reason = new Error('enough');
  controller.abort(reason);
  await assert.rejects(checking, { code: 'interrupted', cause: reason });
});
