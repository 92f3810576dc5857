import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportTar } from '../../src/api/export.js';
import { type PullEvent, pullImage, pullPath } from '../../src/api/pull.js';
import { listStore, pruneStore } from '../../src/api/store.js';
import { paxRecord } from '../../src/format/tar-writer.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import type { SampleFormat } from '../support/layers/sample-image.js';
import {
  addLayer,
  emptyLayout,
  fixtureCopy,
  nameImage,
  noise,
  readConfig,
  readManifest,
  tarOf,
  withMetadata,
  withStargzToc,
  writeTars,
} from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { askedBytes, assertProven, assertWhole, failureOf, layerAsks, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Entry, tarOf as tarOfEntries } from '../support/tars.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

function optionsFor(t: Lifetime, onEvent: (event: PullEvent) => void = () => {}) {
  const store = join(temporaryDirectory(t), 'store');
  return { store, platform: 'linux/amd64', workers: 1, onEvent };
}

type Options = ReturnType<typeof optionsFor>;

/** The tar of a path, and what pulling it gave. */
async function tarOfPath(t: Lifetime, image: string, path: string, options: Options) {
  const result = await pullPath(image, { path, asRoot: false }, options);
  const file = join(temporaryDirectory(t), 'path.tar');
  await exportTar({ store: options.store, diffIds: result.diffIds, ...(!result.isPicked && { path }), file });
  return { ...result, tar: readFileSync(file) };
}

/** The same from the whole image. */
async function wholeTar(t: Lifetime, image: string, path: string): Promise<Buffer> {
  const options = optionsFor(t);
  await pullImage(image, options);
  const { tar, isPicked } = await tarOfPath(t, image, path, { ...options, policy: 'never' } as Options);
  assert.equal(isPicked, false);
  return tar;
}

test('of layers with tar-split only the selected contents are fetched, and the tar equals that of the full image', async (t) => {
  const registry = await startSandbox(t);
  const image = `${registry.host}/some/image:chunked-v1`;
  const whole = await pullImage(image, optionsFor(t));
  for (const path of ['/usr/bin', 'etc/same-1', '/usr/bin/abs-soft']) {
    const before = layerAsks(registry).length;
    const options = optionsFor(t);
    const { tar, isPicked, fetchedBytes, requests } = await tarOfPath(t, image, path, options);
    assert.ok(tar.equals(await wholeTar(t, `oci:${FIXTURE_LAYOUT}:chunked-v1`, path)), path);
    const asks = layerAsks(registry).slice(before);
    assert.deepEqual([isPicked, requests, askedBytes(asks)], [true, asks.length, fetchedBytes], path);
    assert.ok(fetchedBytes < whole.fetchedBytes / 4, `${fetchedBytes} of ${whole.fetchedBytes}`);
    assert.deepEqual((await listStore({ store: options.store })).images, []);
  }
});

test('contents fetched for a path are reused by a pull of the image, and prune deletes those that are not used', async (t) => {
  const options = optionsFor(t);
  const image = `oci:${FIXTURE_LAYOUT}:chunked-v1`;
  await tarOfPath(t, image, '/usr/bin', options);
  const result = await pullImage(image, options);
  assertProven(result);
  assert.ok(result.reusedBytes + result.resumedBytes >= 30_000, JSON.stringify(result));
  assert.equal(assertWhole(options.store), 4);
  await pruneStore({ store: options.store });
  assert.equal(assertWhole(options.store), 3);
});

test('layers without tar-split are pulled in full, and parts of the others, across all layers', async (t) => {
  const layout = emptyLayout(t);
  const lower = tarOf({ 'etc/low': noise(1, 5000), 'etc/both': Buffer.from('lower') });
  const upper = tarOf({
    'etc/both': Buffer.from('upper'),
    'etc/new': noise(2, 200),
    'srv/large': noise(3, 400_000),
  });
  const plain = await addLayer(layout, lower, '');
  await writeTars(t, layout, 'upper', [upper]);
  const above = readManifest(layout, 'upper');
  const diffIds = [plain.digest, ...readConfig(layout, above).rootfs.diff_ids];
  nameImage(layout, 'mixed', [await addLayer(layout, lower, '+gzip'), ...above.layers], diffIds);
  const options = optionsFor(t);
  const { tar, isPicked, fetchedBytes } = await tarOfPath(t, `oci:${layout}:mixed`, 'etc', options);
  assert.ok(isPicked && fetchedBytes < 20_000, String(fetchedBytes));
  assert.ok(tar.equals(await wholeTar(t, `oci:${layout}:mixed`, 'etc')));
});

test('an image whose layers allow no parts is pulled in full, and a stored one is used', async (t) => {
  const options = optionsFor(t);
  const layout = emptyLayout(t);
  const tar = tarOf({ 'usr/x': noise(1, 5000) });
  nameImage(layout, 'gzip', [await addLayer(layout, tar, '+gzip')], [digestOf(tar)]);
  for (const expected of [true, false]) {
    const { isPicked, fetchedBytes, tar } = await tarOfPath(t, `oci:${layout}:gzip`, 'usr', options);
    assert.deepEqual([isPicked, fetchedBytes > 0, tar.length > 0], [false, expected, true]);
  }
});

test('a path that does not exist is refused by the headers alone', async (t) => {
  const registry = await startSandbox(t);
  const pulling = pullPath(
    `${registry.host}/x:chunked-v1`,
    { path: '/usr/bin/none', asRoot: false },
    optionsFor(t),
  );
  const { code, message } = await failureOf(pulling);
  assert.equal(code, 'path-not-found');
  assert.match(message, /the nearest directory is "\/usr\/bin"/);
  assert.equal(layerAsks(registry).length, 3);
});

test('a table of contents that is wrong about a selected file causes a warning, and the full layers are pulled', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ a: noise(1, 5000), b: noise(2, 5000) });
  await writeTars(t, layout, 'good', [tar]);
  const manifest = readManifest(layout, 'good');
  const layer = await withMetadata(layout, manifest.layers[0]!, ({ toc }) => {
    toc.entries.find(({ name }) => name === 'b')!.digest = `sha256:${'0'.repeat(64)}`;
  });
  nameImage(layout, 'lying', [layer], readConfig(layout, manifest).rootfs.diff_ids);
  const events: PullEvent[] = [];
  const picked = await tarOfPath(t, `oci:${layout}:lying`, 'a', optionsFor(t));
  assert.equal(picked.isPicked, true);
  const whole = await tarOfPath(
    t,
    `oci:${layout}:lying`,
    'b',
    optionsFor(t, (event) => events.push(event)),
  );
  assert.equal(whole.isPicked, false);
  assert.ok(warnings(events).some((message) => message.endsWith('pulling the full image instead')));
  assert.ok(whole.tar.includes(noise(2, 5000)));
});

test('bytes with another digest than the blob end the pull with exit code 6', async (t) => {
  const layout = fixtureCopy(t);
  for (const { digest, size } of readManifest(layout, 'chunked-v1').layers) {
    for (let at = 20; at < size / 2; at += 50) flipByte(join(layout, 'blobs', digest.replace(':', '/')), at);
  }
  const { code } = await failureOf(tarOfPath(t, `oci:${layout}:chunked-v1`, '/usr/bin', optionsFor(t)));
  assert.equal(code, 'digest-mismatch');
});

/** A tar of these entries without the end of the archive, which writers of eStargz leave out. */
const tarWith = (...entries: readonly Entry[]): Buffer => tarOfEntries(...entries);
const directory = (name: string): Entry => ({ name, type: '5' });

const LOWER = tarWith(
  directory('etc/'),
  { name: 'etc/large', content: noise(1, 150_000), mode: 0o4755 },
  { name: 'etc/empty' },
  { name: 'etc/gone', content: 'gone' },
  directory('etc/d/'),
  { name: 'etc/d/gone', content: 'gone' },
  { name: 'etc/same', content: noise(1, 150_000) },
  directory('srv/'),
  { name: 'srv/other', content: noise(2, 2_000_000) },
  { name: 'srv/target', content: noise(3, 700), records: paxRecord('SCHILY.xattr.user.k', 'v') },
);
const UPPER = tarWith(
  directory('etc/'),
  { name: 'etc/.wh.gone' },
  directory('etc/d/'),
  { name: 'etc/d/.wh..wh..opq' },
  { name: `etc/d/${'long/'.repeat(30)}é`, content: 'long' },
  { name: 'etc/hard', type: '1', linkName: 'srv/target' },
  { name: 'etc/soft', type: '2', linkName: '../srv/other' },
  { name: 'etc/null', type: '3', devMajor: 1, devMinor: 3 },
  directory('opt/'),
  { name: 'opt/other', content: noise(4, 1_000_000) },
);

for (const [format, options] of [
  ['estargz', { chunkBytes: 40_000 }],
  ['estargz', { chunkBytes: 40_000, minChunkBytes: 60_000 }],
  ['stargz-zstd', {}],
  ['zstd:chunked-old', { chunkBytes: 40_000 }],
] as ReadonlyArray<[SampleFormat, { chunkBytes?: number; minChunkBytes?: number }]>)
  test(`a table of contents replaces tar-split: ${format} ${JSON.stringify(options)}`, async (t) => {
    const layout = emptyLayout(t);
    await writeTars(t, layout, 'image', [LOWER, UPPER], format, options);
    const registry = await startSandbox(t, { layout });
    const own = optionsFor(t);
    const expected = await wholeTar(t, `oci:${layout}:image`, '/etc');
    const { tar, isPicked, fetchedBytes } = await tarOfPath(t, `${registry.host}/x:image`, '/etc', own);
    assert.ok(tar.equals(expected));
    assert.ok(tar.includes(noise(1, 150_000)) && tar.includes('SCHILY.xattr.user.k=v'));
    const asks = layerAsks(registry);
    assert.deepEqual([isPicked, askedBytes(asks)], [true, fetchedBytes]);
    assert.ok(fetchedBytes < 900_000, String(fetchedBytes));
  });

test('layers below one that hides a path are not read, in any format', async (t) => {
  const layout = emptyLayout(t);
  const base = tarOf({ 'etc/x': noise(1, 50_000), other: noise(2, 50_000) });
  const middle = tarWith(directory('etc/'), { name: 'etc/x', content: 'middle' }, { name: 'etc/y' });
  const top = tarWith(directory('srv/'), { name: 'srv/z', content: 'top' });
  await writeTars(t, layout, 'chunked', [top]);
  const tars = [base, base, middle, top];
  const opaque = await Promise.all(
    tars.map((tar, i) => addLayer(layout, tar, i % 2 === 0 ? '+gzip' : '+zstd')),
  );
  nameImage(layout, 'opaque', opaque, tars.map(digestOf));
  const chunkedTop = [...opaque.slice(0, 3), readManifest(layout, 'chunked').layers[0]!];
  nameImage(layout, 'mixed', chunkedTop, tars.map(digestOf));
  const whole = optionsFor(t);
  await pullImage(`oci:${layout}:opaque`, whole);
  for (const [ref, path, count] of [
    ['opaque', 'etc/x', 2],
    ['opaque', 'srv/z', 1],
    ['mixed', 'etc/x', 2],
    // The lowest two are one layer.
    ['mixed', 'etc', 3],
  ] as const) {
    const registry = await startSandbox(t, { layout });
    const picked = await tarOfPath(t, `${registry.host}/x:${ref}`, path, optionsFor(t));
    const { tar } = await tarOfPath(t, `oci:${layout}:opaque`, path, whole);
    assert.ok(picked.tar.equals(tar), path);
    const asks = layerAsks(registry);
    const blobs = new Set(asks.map((ask) => ask.path));
    const found = [picked.isPicked, blobs.size, picked.fetchedBytes];
    assert.deepEqual(found, [true, count, askedBytes(asks)], `${ref} ${path}`);
  }
});

test('a wrong table of contents without tar-split causes a warning, or states what its author wants, and no other bytes are used', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'good', [tarOf({ a: noise(1, 5000), b: noise(2, 5000) })], 'stargz-zstd');
  const manifest = readManifest(layout, 'good');
  const diffIds = readConfig(layout, manifest).rootfs.diff_ids;
  const expected = await wholeTar(t, `oci:${layout}:good`, 'b');
  for (const [fields, isPicked] of [
    [{ digest: `sha256:${'0'.repeat(64)}`, chunkDigest: `sha256:${'0'.repeat(64)}` }, false],
    [{ size: 4999 }, false],
    [{ digest: undefined }, false],
    [{ name: '../../b' }, true],
  ] as const) {
    const layer = await withStargzToc(layout, manifest.layers[0]!, (entries) => {
      Object.assign(entries.find(({ name }) => name === 'b')!, fields);
    });
    nameImage(layout, 'lying', [layer], diffIds);
    const events: PullEvent[] = [];
    const options = optionsFor(t, (event) => events.push(event));
    const picked = await tarOfPath(t, `oci:${layout}:lying`, 'b', options);
    assert.equal(picked.isPicked, isPicked, JSON.stringify(fields));
    assert.ok(picked.tar.equals(expected), JSON.stringify(fields));
    assert.equal(
      warnings(events).some((text) => text.endsWith('pulling the full image instead')),
      !isPicked,
    );
  }
});
