import assert from 'node:assert/strict';
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type DescriptorJson,
  emptyLayout,
  type Metadata,
  nameImage,
  noise,
  readBlob,
  readConfig,
  readManifest,
  tarOf,
  withMetadata,
  writeTars,
} from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { assertProven, failureOf, holdsLayer, layerAsks, listedImages, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const A = noise(2, 100_000);
const B = noise(3, 100_000);

/** A store with an innocent image of one layer. */
async function innocent(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ a: A, b: B })]);
  const manifest = readManifest(layout, 'it');
  const diffId = readConfig(layout, manifest).rootfs.diff_ids[0]!;
  const store = temporaryDirectory(t);
  const { host } = await startSandbox(t, { layout });
  await pull(`${host}/x:it`, { store });
  return { layout, layer: manifest.layers[0]!, diffId, store, image: `${host}/x:it` };
}

/** A registry with an image that says its layer is the innocent blob, under metadata and a DiffID that lie. */
async function hostile(
  t: TestContext,
  of: { layout: string; layer: DescriptorJson },
  lie: (metadata: Metadata) => void,
) {
  const layout = temporaryDirectory(t);
  cpSync(of.layout, layout, { recursive: true });
  const changed = await withMetadata(layout, of.layer, lie);
  writeFileSync(join(layout, 'blobs', of.layer.digest.replace(':', '/')), readBlob(layout, changed.digest));
  nameImage(layout, 'evil', [{ ...changed, digest: of.layer.digest }], [`sha256:${'e'.repeat(64)}`]);
  const { host } = await startSandbox(t, { layout });
  return `${host}/evil:evil`;
}

const LIES: ReadonlyArray<readonly [what: string, lie: (metadata: Metadata) => void]> = [
  [
    'TOC',
    ({ toc }) => {
      for (const entry of toc.entries) {
        if (entry.digest !== undefined) entry.digest = entry.digest.replace(/.{8}$/, 'deadbeef');
      }
    },
  ],
  [
    'tar-split',
    (metadata) => {
      const text = metadata.tarSplit.toString();
      const [, payload = ''] = /"payload":"([A-Za-z0-9+/=]{100,})"/.exec(text) ?? [];
      const header = Buffer.from(payload, 'base64');
      header[0]! ^= 1;
      metadata.tarSplit = Buffer.from(text.replace(payload, header.toString('base64')));
    },
  ],
];

for (const [what, lie] of LIES) {
  test(`a ${what} with wrong statements about the blob of another image reuses nothing of that image`, async (t) => {
    const made = await innocent(t);
    const { store, diffId, image } = made;
    const evil = await hostile(t, made, lie);
    for (let times = 0; times < 2; times++) {
      const error = await failureOf(pull(evil, { store }));
      assert.deepEqual([error.code, error.layer], ['digest-mismatch', made.layer.digest], error.message);
    }
    assert.deepEqual(packFiles(store, '.bad'), []);
    assert.ok(holdsLayer(store, diffId));
    assert.deepEqual(listedImages(store), [image]);
    const { result } = await pull(image, { store, policy: 'never' });
    assertProven(result);
    const again = await pull(image, { store });
    assert.equal(again.result.fetchedBytes, 0);
  });
}

test('a frame that states 150 MiB is used for no content, and its blob has a wrong digest', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ a: A, b: B })]);
  const { digest } = readManifest(layout, 'it').layers[0]!;
  const blob = readBlob(layout, digest);
  blob.writeUInt32LE(0x184d2a50, 0);
  blob.writeUInt32LE(150 * 2 ** 20, 4);
  writeFileSync(join(layout, 'blobs', digest.replace(':', '/')), blob);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:it`, { store }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['digest-mismatch', 6, digest], error.message);
  // Once as a span, and twice as a part of the whole blob.
  assert.equal(layerAsks(registry).filter(({ start }) => start === 0).length, 3);
});
