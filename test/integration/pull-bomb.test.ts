import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import {
  addBlob,
  addLayer,
  type DescriptorJson,
  emptyLayout,
  nameImage,
  noise,
  readConfig,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { zstdBomb } from '../support/streams.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;
const ANY_DIFF_ID = `sha256:${'1'.repeat(64)}`;

/** Bytes that the packs of a store take on the disk. */
function packBytes(store: string): number {
  return packFiles(store, '').reduce((sum, path) => sum + statSync(path).blocks * 512, 0);
}

/** An image of one good layer, and one named `evil` of this layer. */
async function withEvil(t: TestContext, layer: (layout: string) => DescriptorJson | Promise<DescriptorJson>) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ a: noise(1, 300_000), b: noise(2, 200_000) })]);
  nameImage(layout, 'evil', [await layer(layout)], [ANY_DIFF_ID]);
  return startSandbox(t, { layout });
}

function zstdOf(layout: string, blob: Buffer): DescriptorJson {
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+zstd';
  return { mediaType, digest: addBlob(layout, blob), size: blob.length };
}

test('a layer of 2 MB that would fill any disk leaves some space free, and its bytes are deleted', {
  skip: skipUnlessMount(),
}, async (t) => {
  const { host } = await withEvil(t, (layout) => zstdOf(layout, zstdBomb(2 ** 19)));
  const disk = smallDisk(t, 64 * MIB);
  const store = join(disk, 'store');
  let mostWritten = 0;
  const error = await failureOf(
    pull(`${host}/x:evil`, {
      store,
      onEvent: (event) => {
        if (event.event === 'progress') mostWritten = event.writtenBytes;
      },
    }),
  );
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7], error.message);
  assert.match(error.message, /free, of which 1\.3 MB are a reserve for other programs/);
  t.diagnostic(`${mostWritten} bytes written`);
  // Its blob is kept: with more room it need not be fetched again.
  assert.ok(packBytes(store) < 4 * MIB, `${packBytes(store)} bytes`);
  const { result } = await pull(`${host}/x:it`, { store });
  assertProven(result);
});

test('bytes of an opaque layer with a wrong DiffID are deleted, and so is its blob', async (t) => {
  for (const suffix of ['', '+gzip', '+zstd'] as const) {
    const { host } = await withEvil(t, (layout) => addLayer(layout, tarOf({ a: noise(7, 2 * MIB) }), suffix));
    const store = temporaryDirectory(t);
    const error = await failureOf(pull(`${host}/x:evil`, { store }));
    assert.deepEqual([error.code, error.exitCode], ['digest-mismatch', 6]);
    assert.deepEqual(packFiles(store, ''), [], suffix);
  }
});

test('bytes of a chunked layer with a wrong DiffID are deleted, unless another layer uses them', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ a: noise(7, 2 * MIB) });
  await writeTars(t, layout, 'good', [tar]);
  const manifest = readManifest(layout, 'good');
  nameImage(layout, 'evil', manifest.layers, [ANY_DIFF_ID]);
  const [diffId] = readConfig(layout, manifest).rootfs.diff_ids;
  nameImage(layout, 'both', [...manifest.layers, ...manifest.layers], [diffId!, ANY_DIFF_ID]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${host}/x:evil`, { store }));
  assert.deepEqual([error.code, error.exitCode], ['digest-mismatch', 6]);
  assert.deepEqual(packFiles(store, ''), []);
  await failureOf(pull(`${host}/x:both`, { store }));
  const { result } = await pull(`${host}/x:good`, { store });
  assertProven(result);
});

test('decoded bytes of a truncated opaque layer are deleted', async (t) => {
  const whole = gzipSync(tarOf({ a: noise(9, 3 * MIB) }));
  const { host } = await withEvil(t, (layout) => {
    const blob = whole.subarray(0, 2 * MIB);
    const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
    return { mediaType, digest: addBlob(layout, blob), size: blob.length };
  });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${host}/x:evil`, { store }));
  assert.deepEqual([error.code, error.exitCode], ['metadata-malformed', 6]);
  assert.deepEqual(packFiles(store, ''), []);
});
