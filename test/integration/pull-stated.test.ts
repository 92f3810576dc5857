import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { verifyStore } from '../../src/api/store.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { RECORD_BYTES, RECORD_TYPES } from '../../src/store/pack-index.js';
import { storePaths } from '../../src/store/paths.js';
import { writeSampleImage } from '../support/layers/sample-image.js';
import {
  addLayer,
  emptyLayout,
  metadataRanges,
  nameImage,
  noise,
  readConfig,
  readLayerMetadata,
  readManifest,
  tarOf,
  withMetadata,
  writeTars,
} from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { assertProven, failureOf, holdsLayer, layerAsks, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const A = noise(1, 50_000);
const B = noise(2, 50_000);
const OWN = noise(3, 10_000);
/** Metadata and what is between contents. */
const SLACK_BYTES = 10_000;

/** How many content records the indexes of a store have of each kind. */
function contentRecords(store: string): { computed: number; stated: number } {
  const types = ['.idx', '.idx.open']
    .flatMap((suffix) => packFiles(store, suffix))
    .flatMap((path) => {
      const index = readFileSync(path);
      return Array.from({ length: index.length / RECORD_BYTES }, (_, row) => index[row * RECORD_BYTES + 4]);
    });
  const count = (type: number) => types.filter((other) => other === type).length;
  return { computed: count(RECORD_TYPES.content), stated: count(RECORD_TYPES.stated) };
}

/**
 * A registry with images of an honest author, and `evil`: its layer is the tar that its DiffID names, and its TOC states the
 * digest of A for B, and that of B for A. The store has pulled it.
 */
async function poisoned(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'evil', [tarOf({ a: A, b: B })]);
  const manifest = readManifest(layout, 'evil');
  const { diff_ids: diffIds } = readConfig(layout, manifest).rootfs;
  const lying = await withMetadata(layout, manifest.layers[0]!, ({ toc }) => {
    const [one, other] = ['a', 'b'].map((name) => toc.entries.find((entry) => entry.name === name)!);
    [one!.digest, other!.digest] = [other!.digest!, one!.digest!];
  });
  nameImage(layout, 'evil', [lying], diffIds);
  await writeTars(t, layout, 'honest', [tarOf({ x: A, y: B, own: OWN })]);
  await writeTars(t, layout, 'next', [tarOf({ 'x/y': B, 'x/z': A, own: OWN })]);
  const path = join(temporaryDirectory(t), 'old.tar');
  writeFileSync(path, tarOf({ old: A, older: B }));
  const sources = [{ kind: 'tar', path }] as const;
  await writeSampleImage({ layoutDir: layout, ref: 'old', sources, format: 'zstd:chunked-old' });
  const stream = tarOf({ first: A, second: B });
  nameImage(layout, 'stream', [await addLayer(layout, stream, '+gzip')], [digestOf(stream)]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const take = (ref: string) => pull(`${host}/x:${ref}`, { store });
  const evil = await take('evil');
  assertProven(evil.result);
  assert.deepEqual(warnings(evil.events), []);
  assert.deepEqual(contentRecords(store), { computed: 0, stated: 2 });
  return { store, take, evilDiffId: diffIds[0]! };
}

test('wrong digests of contents in a TOC cost the next layer with those contents one more request', async (t) => {
  const { store, take, evilDiffId } = await poisoned(t);
  const { result, events } = await take('honest');
  assertProven(result);
  assert.match(
    warnings(events).join(),
    /^2 parts of layer [^;]* in the store are not what the metadata states; replacing them$/,
  );
  const { fetchedBytes } = result;
  const least = A.length + B.length + OWN.length;
  assert.ok(fetchedBytes >= least && fetchedBytes < least + SLACK_BYTES, `${fetchedBytes}`);
  // Those that were fetched again have digests that were computed, and those of the liar are corrected.
  assert.deepEqual(contentRecords(store), { computed: 4, stated: 1 });
  const next = await take('next');
  assertProven(next.result);
  assert.deepEqual(warnings(next.events), []);
  assert.ok(next.result.fetchedBytes < SLACK_BYTES, `${next.result.fetchedBytes}`);
  // The liar keeps its layer: its bytes are what its DiffID names.
  assert.ok(holdsLayer(store, evilDiffId));
  assert.deepEqual(packFiles(store, '.bad'), []);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
});

test('a layer without tar-split that reuses contents with wrong digests is pulled as an opaque one, and an opaque layer reuses none of them', async (t) => {
  for (const [ref, says] of [
    ['old', /^layer sha256:[0-9a-f]{64}: .*DiffID.*; pulling the full layer instead$/],
    ['stream', /^$/],
  ] as const) {
    const { store, take, evilDiffId } = await poisoned(t);
    const { result, events } = await take(ref);
    assertProven(result);
    assert.match(warnings(events).join('\n'), says);
    assert.equal(contentRecords(store).stated, 0);
    assert.ok(holdsLayer(store, evilDiffId));
    assert.deepEqual(packFiles(store, '.bad'), []);
  }
});

test('a wrong digest of bytes that begin like those of opaque layers is found once, not with each of them', async (t) => {
  const large = noise(4, 1_100_000);
  const lie = Buffer.from(large);
  lie[lie.length - 1]! ^= 1;
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'evil', [tarOf({ large: lie })]);
  const manifest = readManifest(layout, 'evil');
  const lying = await withMetadata(layout, manifest.layers[0]!, ({ toc }) => {
    toc.entries[0]!.digest = digestOf(large);
  });
  nameImage(layout, 'evil', [lying], readConfig(layout, manifest).rootfs.diff_ids);
  for (const ref of ['one', 'two'])
    await writeTars(t, layout, ref, [tarOf({ [ref]: large, own: OWN })], 'zstd:chunked-old');
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const told = [];
  for (const ref of ['evil', 'one', 'two']) {
    const { result, events } = await pull(`${host}/x:${ref}`, { store });
    assertProven(result);
    told.push(warnings(events).length);
  }
  assert.deepEqual(told, [0, 1, 0]);
});

/** A registry that sends the content `file5` of `it` wrong once; `other` has the same content. */
async function wrongOnce(t: TestContext) {
  const layout = emptyLayout(t);
  const names = Array.from({ length: 8 }, (_, i) => `file${i}`);
  const files = Object.fromEntries(names.map((name, i) => [name, noise(i + 10, 60_000)]));
  await writeTars(t, layout, 'it', [tarOf(files)]);
  await writeTars(t, layout, 'other', [tarOf({ elsewhere: files['file5']!, own: OWN })]);
  const layer = readManifest(layout, 'it').layers[0]!;
  const { toc } = await readLayerMetadata(layout, layer);
  const { offset = 0 } = toc.entries.find(({ name }) => name === 'file5')!;
  const range = `0-${metadataRanges(layer).toc[0] - 9}`;
  const faults: FaultRule[] = [
    { match: { path: layer.digest, range, nth: 1 }, action: { flipByteAt: offset + 30_000 } },
  ];
  return { layout, faults };
}

/** A store in which a pull was ended when all but the last content was written, one of them wrong. */
async function killed(t: TestContext) {
  const { layout, faults } = await wrongOnce(t);
  const slow = await startSandbox(t, { layout, faults, ratePerConnectionBytes: 200_000 });
  const store = temporaryDirectory(t);
  const controller = new AbortController();
  const pulling = pull(`${slow.host}/x:it`, {
    store,
    workers: 1,
    signal: controller.signal,
    onEvent: (event) => {
      if (event.event === 'progress' && event.writtenBytes > 6.5 * 60_000) controller.abort();
    },
  });
  assert.equal((await failureOf(pulling)).code, 'interrupted');
  const registry = await startSandbox(t, { layout });
  return { store, registry };
}

test('a wrong content of a pull that ended before its verification is fetched again by the next pull', async (t) => {
  const { store, registry } = await killed(t);
  const { result, events } = await pull(`${registry.host}/x:it`, { store });
  assertProven(result);
  assert.match(
    warnings(events).join(),
    /^1 part of layer [^;]* in the store is not what the metadata states; replacing it$/,
  );
  assert.ok(result.resumedBytes > 300_000, `${result.resumedBytes}`);
  assert.ok(result.fetchedBytes < 3 * 60_000 + SLACK_BYTES, `${result.fetchedBytes}`);
  // The wrong bytes are still there, and are nobody's: a pull that has to go on from these packs again does not take them.
  rmSync(join(storePaths(store).layers, result.layers[0]!.diffId.slice('sha256:'.length)));
  const again = await pull(`${registry.host}/x:it`, { store });
  assertProven(again.result);
  assert.deepEqual(warnings(again.events), []);
  assert.ok(again.result.fetchedBytes < SLACK_BYTES, `${again.result.fetchedBytes}`);
});

test('a wrong content of an unfinished pull makes no other layer wrong', async (t) => {
  const { store, registry } = await killed(t);
  const other = await pull(`${registry.host}/x:other`, { store });
  assertProven(other.result);
  assert.equal(warnings(other.events).length, 1);
  assert.ok(other.result.reusedBytes >= 60_000, 'it was found in the pack of the other pull');
  const { result } = await pull(`${registry.host}/x:it`, { store });
  assertProven(result);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
});

test('a wrong content that is copied to the layer above is repaired in both', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ below: A, b: B }), tarOf({ above: A, own: OWN })]);
  const { digest: path } = readManifest(layout, 'it').layers[0]!;
  const faults = [{ match: { path, nth: 2 }, action: { flipByteAt: 25_000 } }];
  const { host } = await startSandbox(t, { layout, faults });
  const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  const told = warnings(events);
  assert.ok(told.length >= 1 && told.every((warning) => warning.endsWith('fetching it again')), told.join());
});

test('a wrong content that its layer has many times is fetched once more, not once for each', async (t) => {
  const layout = emptyLayout(t);
  const files = Array.from(
    { length: 20 },
    (_, i) => [`n${i + 10}`, i % 2 === 0 ? A : noise(i + 30, 3000)] as const,
  );
  await writeTars(t, layout, 'it', [tarOf(Object.fromEntries(files))]);
  const { digest: path } = readManifest(layout, 'it').layers[0]!;
  const registry = await startSandbox(t, {
    layout,
    faults: [{ match: { path, nth: 2 }, action: { flipByteAt: 25_000 } }],
  });
  const { result } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  const asked = layerAsks(registry).filter(({ start }) => start! < 50_000);
  assert.equal(asked.length, 2);
  assert.ok(result.fetchedBytes < 3 * A.length + 30_000 + SLACK_BYTES, `${result.fetchedBytes}`);
});

test('of a content larger than a span only the wrong chunk is fetched once more', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ large: noise(5, 9 * 2 ** 20) })]);
  const { digest: path } = readManifest(layout, 'it').layers[0]!;
  // The first request is for the metadata, two are for the content.
  const once = { match: { path, nth: [2, 3] }, action: { flipByteAt: 5_000_000 } } as const;
  const { host } = await startSandbox(t, { layout, faults: [once] });
  const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t), connections: 1 });
  assertProven(result);
  assert.match(warnings(events).join(), /^1 content of layer [^;]*; fetching it again$/);
  assert.ok(result.fetchedBytes < 10 * 2 ** 20, `${result.fetchedBytes}`);
});
