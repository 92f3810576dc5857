import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportTar, listStore, type PullEvent, pruneStore, pullImage, pullPath } from '../../src/index.js';
import { DIALECT_LAYOUT, FIXTURE_LAYOUT } from '../support/fixture-layout.js';
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
  writeTars,
} from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { askedBytes, assertProven, assertWhole, failureOf, layerAsks, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

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

test('of layers with tar-split only the wanted contents are fetched, and the tar is that of the whole image', async (t) => {
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

test('what was fetched for a path is used by the pull of the image, and prune frees what a path left', async (t) => {
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

test('layers without tar-split come whole, and parts of the others, through all of them', async (t) => {
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

test('an image whose layers allow no parts is pulled whole, and so is one that is there', async (t) => {
  const options = optionsFor(t);
  for (const expected of [true, false]) {
    const { isPicked, fetchedBytes, tar } = await tarOfPath(
      t,
      `oci:${DIALECT_LAYOUT}:estargz`,
      'usr',
      options,
    );
    assert.deepEqual([isPicked, fetchedBytes > 0, tar.length > 0], [false, expected, true]);
  }
});

test('a path that is not there is refused by the headers alone', async (t) => {
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

test('a table of contents that lies about a wanted file costs a warning, and the whole layers are pulled', async (t) => {
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
  assert.ok(warnings(events).some((message) => message.endsWith('the image is pulled whole')));
  assert.ok(whole.tar.includes(noise(2, 5000)));
});

test('bytes that are not those of the blob end with 6', async (t) => {
  const layout = fixtureCopy(t);
  for (const { digest, size } of readManifest(layout, 'chunked-v1').layers) {
    for (let at = 20; at < size / 2; at += 50) flipByte(join(layout, 'blobs', digest.replace(':', '/')), at);
  }
  const { code } = await failureOf(tarOfPath(t, `oci:${layout}:chunked-v1`, '/usr/bin', optionsFor(t)));
  assert.equal(code, 'digest-mismatch');
});
