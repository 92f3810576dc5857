import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exportLayers } from '../../src/api/export.js';
import type { PullResult } from '../../src/api/pull.js';
import { parseDigest } from '../../src/format/digest.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { encodeContent, RECORD_BYTES } from '../../src/store/pack-index.js';
import { layerRecordPath, storePaths } from '../../src/store/paths.js';
import {
  emptyLayout,
  metadataRanges,
  noise,
  readConfig,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { findInPacks, flipByte, packFiles } from '../support/packs.js';
import { assertProven, failureOf, layerAsks, listedImages, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const ONE = noise(1, 300_000);
const TWO = noise(2, 200_000);
const THREE = noise(3, 400_000);
const OWN = noise(4, 100_000);
/** Metadata, frames between contents and the like: more than these few files have. */
const SLACK_BYTES = 20_000;

/** A store with the image `old`, and a registry that also has `new`: the same contents in another tar, and one more. */
async function oldAndNew(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'old', [tarOf({ one: ONE, two: TWO, three: THREE })]);
  await writeTars(t, layout, 'new', [tarOf({ '1': ONE, '2': TWO, '3': THREE, own: OWN })]);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const { result } = await pull(`${registry.host}/x:old`, { store });
  return { layout, registry, store, old: result, host: registry.host };
}

function assertFetched(result: PullResult, contentBytes: number): void {
  const { fetchedBytes } = result;
  assert.ok(
    fetchedBytes >= contentBytes && fetchedBytes < contentBytes + SLACK_BYTES,
    `${fetchedBytes} fetched, ${contentBytes} needed`,
  );
}

test('an intact store is reused, and only the missing parts are fetched', async (t) => {
  const { host, store } = await oldAndNew(t);
  const { result, events } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length);
  assert.equal(result.reusedBytes, ONE.length + TWO.length + THREE.length);
  assert.deepEqual(warnings(events), []);
  assertProven(result);
});

test('a content that has changed on disk is found, and only that is fetched', async (t) => {
  const { host, store, old } = await oldAndNew(t);
  const { path, at } = findInPacks(store, TWO);
  flipByte(path, at + 1000);
  const { result, events } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length + TWO.length);
  assert.equal(warnings(events).length, 1);
  assertProven(result);
  // It is known to be false from now on: the layer that had it is not held, and is mended by what is there now.
  const again = await pull(`${host}/x:old`, { store });
  assert.equal(again.result.digest, old.digest);
  assertFetched(again.result, 0);
  assertProven(again.result);
});

test('several contents that have changed on disk are all found and fetched', async (t) => {
  const { host, store } = await oldAndNew(t);
  for (const content of [ONE, THREE]) {
    const { path, at } = findInPacks(store, content);
    flipByte(path, at);
    flipByte(path, at + content.length - 1);
  }
  const { result } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length + ONE.length + THREE.length);
  assertProven(result);
});

test('a damaged layer is not exported, and leaves no file under its name', async (t) => {
  const { store, old } = await oldAndNew(t);
  const { path, at } = findInPacks(store, ONE);
  flipByte(path, at);
  const { diffId } = old.layers[0]!;
  const directory = join(store, 'exported');
  const error = await failureOf(exportLayers({ store, diffIds: [diffId], directory }));
  assert.deepEqual([error.code, error.exitCode], ['digest-mismatch', 6]);
  assert.ok(error.message.includes(diffId));
  assert.throws(() => statSync(join(directory, `${diffId.slice(7)}.tar`)), { code: 'ENOENT' });
});

test('the missing end of a truncated pack is fetched', async (t) => {
  const { host, store } = await oldAndNew(t);
  const { path, at } = findInPacks(store, THREE);
  truncateSync(path, at + 5000);
  const { result } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length + THREE.length);
  assertProven(result);
});

test('missing packs are fetched again', async (t) => {
  const { host, store } = await oldAndNew(t);
  for (const path of packFiles(store, '.pack')) rmSync(path);
  for (const ref of ['old', 'new']) {
    const { result } = await pull(`${host}/x:${ref}`, { store });
    assertFetched(result, ref === 'old' ? ONE.length + TWO.length + THREE.length : OWN.length);
    assertProven(result);
  }
});

test('an index of garbage causes a download and nothing else', async (t) => {
  const { host, store } = await oldAndNew(t);
  for (const path of packFiles(store, '.idx')) writeFileSync(path, noise(99, statSync(path).size + 33));
  const { result } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length + ONE.length + TWO.length + THREE.length);
  assertProven(result);
});

test('a truncated index gives its remaining records', async (t) => {
  const { host, store } = await oldAndNew(t);
  for (const path of packFiles(store, '.idx')) truncateSync(path, statSync(path).size - 10);
  const { result } = await pull(`${host}/x:new`, { store });
  assertProven(result);
});

test('an index with a wrong digest is not trusted', async (t) => {
  const { layout, host, store } = await oldAndNew(t);
  const other = noise(5, 150_000);
  await writeTars(t, layout, 'other', [tarOf({ other })]);
  await pull(`${host}/x:other`, { store });
  // OWN is in no pack; a sound record claims that its bytes stand where those of `other` are.
  const { path, at } = findInPacks(store, other);
  const lie = Buffer.alloc(RECORD_BYTES);
  encodeContent(lie, 0, createHash('sha256').update(OWN).digest(), 0, at, OWN.length);
  appendFileSync(path.replace(/\.pack$/, '.idx'), lie);
  const { result, events } = await pull(`${host}/x:new`, { store });
  assertFetched(result, OWN.length);
  assert.equal(warnings(events).length, 1);
  assertProven(result);
});

test('bad runs marked by another process are not used', async (t) => {
  const { host, store, old } = await oldAndNew(t);
  const { path, at } = findInPacks(store, TWO);
  const run = Buffer.alloc(16);
  run.writeBigUInt64LE(BigInt(at), 0);
  run.writeBigUInt64LE(BigInt(TWO.length), 8);
  writeFileSync(path.replace(/\.pack$/, '.bad'), run);
  const never = await failureOf(pull(`${host}/x:old`, { store, policy: 'never' }));
  assert.equal(never.code, 'image-not-found');
  const { result } = await pull(`${host}/x:old`, { store });
  assert.equal(result.digest, old.digest);
  assertFetched(result, TWO.length);
  assertProven(result);
});

test('a changed layer record is invalid: the layer is rebuilt from its contents', async (t) => {
  const { host, store, old } = await oldAndNew(t);
  const path = layerRecordPath(storePaths(store), parseDigest(old.layers[0]!.diffId, 'DiffID'));
  for (const at of [40, Math.floor(statSync(path).size / 2), statSync(path).size - 1]) {
    flipByte(path, at);
    const { result } = await pull(`${host}/x:old`, { store });
    assertFetched(result, 0);
    assert.equal(result.requests, 1);
    assertProven(result);
  }
});

test('the layer record of another layer is not used', async (t) => {
  const { host, store, old, layout } = await oldAndNew(t);
  await pull(`${host}/x:new`, { store });
  const paths = storePaths(store);
  const other = readConfig(layout, readManifest(layout, 'new')).rootfs.diff_ids[0]!;
  const wrong = readFileSync(layerRecordPath(paths, parseDigest(other, 'DiffID')));
  writeFileSync(layerRecordPath(paths, parseDigest(old.layers[0]!.diffId, 'DiffID')), wrong);
  const { result } = await pull(`${host}/x:old`, { store });
  assertProven(result);
});

test('a changed manifest or config in the store is fetched again', async (t) => {
  const { host, store, old, registry } = await oldAndNew(t);
  const paths = storePaths(store);
  const manifest = join(paths.blobs, old.digest.slice(7));
  flipByte(manifest, 30);
  const asked = registry.requests.length;
  const { result } = await pull(`${host}/x@${old.digest}`, { store });
  assert.equal(result.digest, old.digest);
  assert.equal(registry.requests.length, asked + 1);
  assert.equal(result.fetchedBytes, 0);
});

test('a changed image record is invalid', async (t) => {
  const { host, store } = await oldAndNew(t);
  const { images } = storePaths(store);
  const [name] = readdirSync(images);
  const record = join(images, name!);
  const text = readFileSync(record, 'utf8');
  writeFileSync(record, text.replace(/"manifestDigest": "sha256:./, '"manifestDigest": "sha256:Z'));
  assert.deepEqual(listedImages(store), []);
  assert.equal((await failureOf(pull(`${host}/x:old`, { store, policy: 'never' }))).code, 'image-not-found');
  const { result } = await pull(`${host}/x:old`, { store });
  assert.equal(result.fetchedBytes, 0);
  assert.deepEqual(listedImages(store), [`${host}/x:old`]);
});

/** Removes the kept TOCs and tar-splits, as other pulls of the same layers do when they are done. */
function dropMetadata(store: string): void {
  const { blobs } = storePaths(store);
  for (const name of readdirSync(blobs)) {
    const path = join(blobs, name);
    if (readFileSync(path).readUInt32LE(0) === 0xfd2fb528) rmSync(path); // zstd; what stays is JSON
  }
}

/** Asks for TOC and tar-split together, and for tar-split alone. */
function metadataAsks(layout: string, ref: string, asks: readonly RequestRecord[]) {
  const layer = readManifest(layout, ref).layers[0]!;
  const { toc, tarSplit } = metadataRanges(layer);
  const own = asks.filter(({ path, end }) => path.endsWith(layer.digest) && end === tarSplit[1]);
  const from = (start: number) => own.filter((ask) => ask.start === start).length;
  return { both: from(toc[0]), tarSplit: from(tarSplit[0]) };
}

test('a tar-split that another pull removes before its bytes are written is fetched again', async (t) => {
  const { layout, host, store, registry } = await oldAndNew(t);
  const { result } = await pull(`${host}/x:new`, {
    store,
    onEvent: ({ event }) => {
      if (event === 'planned') dropMetadata(store);
    },
  });
  assertProven(result);
  assert.deepEqual(metadataAsks(layout, 'new', layerAsks(registry)), { both: 1, tarSplit: 1 });
});

for (const [how, lose] of [
  ['vanishes', rmSync],
  ['loses its end', (path: string) => truncateSync(path, 5000)],
] as const) {
  test(`a pack that ${how} after the look-up is fetched again`, async (t) => {
    const { host, store } = await oldAndNew(t);
    const { result, events } = await pull(`${host}/x:new`, {
      store,
      onEvent: ({ event }) => {
        if (event !== 'planned') return;
        for (const path of packFiles(store, '.pack')) lose(path);
      },
    });
    assertFetched(result, OWN.length + ONE.length + TWO.length + THREE.length);
    assert.equal(warnings(events).length, 1);
    assertProven(result);
    // The other layer is not taken for one that is there, and is mended by what is there now.
    const again = await pull(`${host}/x:old`, { store });
    assertFetched(again.result, 0);
    assertProven(again.result);
  });
}

/** The beginning of the first content of the layer below, received and written before anything else. */
const FIRST_BYTES = noise(1, 300_000).subarray(0, 1000);

/** A store in which a pull of one layer was broken off after much of it had been written. */
async function brokenOff(t: TestContext) {
  const layout = emptyLayout(t);
  const files = Array.from({ length: 10 }, (_, i) => [`file${i}`, noise(i + 1, 300_000)] as const);
  await writeTars(t, layout, 'it', [tarOf(Object.fromEntries(files))]);
  const slow = await startSandbox(t, { layout, rateBytes: 2e6 });
  const store = temporaryDirectory(t);
  const controller = new AbortController();
  const error = await failureOf(
    pull(`${slow.host}/x:it`, {
      store,
      workers: 1,
      connections: 2,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event === 'progress' && event.writtenBytes > 1_500_000) controller.abort();
      },
    }),
  );
  assert.equal(error.code, 'interrupted');
  const registry = await startSandbox(t, { layout });
  return { store, registry, image: `${registry.host}/x:it` };
}

test('an interrupted pull is resumed: stored bytes are not requested again', async (t) => {
  const { store, registry, image } = await brokenOff(t);
  assert.deepEqual(packFiles(store, '.idx'), []);
  const { result } = await pull(image, { store });
  assertProven(result);
  assert.ok(result.resumedBytes >= 1_400_000, `${result.resumedBytes}`);
  assertFetched(result, result.layers[0]!.tarBytes - result.resumedBytes - SLACK_BYTES / 2);
  assert.ok(!layerAsks(registry).some(({ start }) => start! < FIRST_BYTES.length));
});

test('changed bytes of an interrupted pull are not used', async (t) => {
  const { store, registry, image } = await brokenOff(t);
  const { path, at } = findInPacks(store, FIRST_BYTES);
  flipByte(path, at + 500);
  const { result } = await pull(image, { store });
  assertProven(result);
  assert.ok(result.resumedBytes > 0);
  assert.ok(layerAsks(registry).some(({ start }) => start! < FIRST_BYTES.length));
});

test('a truncated pack of an interrupted pull, as after a power cut, is used up to its end', async (t) => {
  const { store, image } = await brokenOff(t);
  for (const path of packFiles(store, '.pack')) truncateSync(path, 700_000);
  const { result } = await pull(image, { store });
  assertProven(result);
  assert.ok(result.resumedBytes > 0 && result.resumedBytes <= 700_000, `${result.resumedBytes}`);
});

test('zeros in the pack of an interrupted pull, as after a power cut, are not used', async (t) => {
  const { store, image } = await brokenOff(t);
  for (const path of packFiles(store, '.pack')) {
    const { size } = statSync(path);
    truncateSync(path, 0);
    truncateSync(path, size);
  }
  const { result } = await pull(image, { store });
  assertProven(result);
  assert.equal(result.resumedBytes, 0);
});
