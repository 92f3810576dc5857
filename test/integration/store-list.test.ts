import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { listStore, removeImage } from '../../src/api/store.js';
import { readImageRecord, writeImageRecord } from '../../src/store/image-record.js';
import { blobPath, layerRecordPath, storePaths } from '../../src/store/paths.js';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const ONE = noise(1, 300_000);
const TWO = noise(2, 200_000);
const OWN = noise(4, 100_000);
/** A tar's headers, paddings and end of so few files. */
const TAR_SLACK_BYTES = 5000;

/** A store with the image `old`, and `new`, which has its contents in another tar and one more. */
async function oldAndNew(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'old', [tarOf({ one: ONE, two: TWO })]);
  await writeTars(t, layout, 'new', [tarOf({ '1': ONE, '2': TWO, own: OWN })]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const images = { old: `${host}/x:old`, new: `${host}/x:new` };
  const pulled = {
    old: (await pull(images.old, { store })).result,
    new: (await pull(images.new, { store })).result,
  };
  return { layout, store, images, pulled };
}

test('images are listed with their size and shared size', async (t) => {
  const { store, images, pulled } = await oldAndNew(t);
  const listing = listStore({ store });
  assert.deepEqual(listing.brokenOff, []);
  assert.deepEqual(
    listing.images.map(({ image, digest, platform }) => [image, digest, platform]),
    [images.new, images.old].map((image) => [
      image,
      (image === images.old ? pulled.old : pulled.new).digest,
      pulled.old.platform,
    ]),
  );
  const [newer, older] = listing.images;
  const shared = ONE.length + TWO.length;
  assert.deepEqual([newer!.sharedBytes, older!.sharedBytes], [shared, shared]);
  for (const [image, bytes] of [
    [older, shared],
    [newer, shared + OWN.length],
  ] as const) {
    assert.ok(image!.sizeBytes > bytes && image!.sizeBytes < bytes + TAR_SLACK_BYTES, `${image!.sizeBytes}`);
    assert.ok(Math.abs(Date.parse(image!.lastUsed) - Date.now()) < 600_000);
  }
});

test('an image with a missing layer is not listed, but reported', async (t) => {
  const { store, images, pulled } = await oldAndNew(t);
  rmSync(layerRecordPath(storePaths(store), pulled.old.layers[0]!.diffId as never));
  const told: string[][] = [];
  const listing = listStore({ store, incomplete: (...image) => told.push(image) });
  assert.deepEqual(
    listing.images.map(({ image, sharedBytes }) => [image, sharedBytes]),
    [[images.new, 0]],
  );
  assert.deepEqual(told, [[images.old, pulled.old.platform]]);
});

test('an image whose config has changed is not listed until it is pulled again', async (t) => {
  const { store, images, layout } = await oldAndNew(t);
  const { config } = readManifest(layout, 'old');
  flipByte(blobPath(storePaths(store), config.digest as never), 10);
  const listed = () => listStore({ store }).images.map(({ image }) => image);
  assert.deepEqual(listed(), [images.new]);
  await pull(images.old, { store });
  assert.deepEqual(listed(), [images.new, images.old]);
});

test('a partly received blob is listed until its layer is verified', async (t) => {
  const layout = emptyLayout(t);
  const files = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`f${i}`, noise(i + 1, 300_000)]));
  const { layers } = await writeTars(t, layout, 'it', [tarOf(files)]);
  const blob = layers[0]!.digest;
  const store = temporaryDirectory(t);
  const { host } = await startSandbox(t, { layout, rateBytes: 5e6 });
  const controller = new AbortController();
  await failureOf(
    pull(`${host}/x:it`, {
      store,
      connections: 2,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event === 'progress' && event.writtenBytes > 500_000) controller.abort();
      },
    }),
  );
  const { images, brokenOff } = listStore({ store });
  assert.deepEqual([images, brokenOff.map((each) => each.blob)], [[], [blob]]);
  assert.ok(brokenOff[0]!.bytes > 400_000, `${brokenOff[0]!.bytes}`);
  await pull(`${host}/x:it`, { store });
  assert.deepEqual(listStore({ store }).brokenOff, []);
});

test('the last use of an image is recorded, at most every hour', async (t) => {
  const { store, images, pulled } = await oldAndNew(t);
  const paths = storePaths(store);
  const record = readImageRecord(paths, images.old, pulled.old.platform)!;
  const used = async () => {
    await pull(images.old, { store, policy: 'never' });
    return readImageRecord(paths, images.old, pulled.old.platform)!.lastUsedMs;
  };
  assert.equal(await used(), record.lastUsedMs);
  await writeImageRecord(paths, { ...record, lastUsedMs: record.lastUsedMs - 3_700_000 });
  assert.ok((await used()) >= record.lastUsedMs);
});

test('a removed image is not listed; its layers stay, and a pull of it fetches none', async (t) => {
  const { store, images, pulled } = await oldAndNew(t);
  const { digest, platform } = pulled.old;
  assert.deepEqual(await removeImage({ store, image: images.old }), [
    { image: images.old, digest, platform },
  ]);
  assert.deepEqual(
    listStore({ store }).images.map(({ image }) => image),
    [images.new],
  );
  const error = await failureOf(removeImage({ store, image: images.old }));
  assert.deepEqual([error.code, error.exitCode], ['image-not-found', 3]);
  const { result } = await pull(images.old, { store });
  assert.equal(result.fetchedBytes, 0);
});
