import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { verifyStore } from '../../src/index.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { assertProven, failureOf, holdsLayer, layerAsks, listedImages, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { fillDisk, makeReadOnly, skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;

/** An image of one layer of 6 MiB. */
async function sixMebibytes(t: TestContext): Promise<string> {
  const layout = emptyLayout(t);
  const files = Array.from({ length: 12 }, (_, i) => [`file${i}`, noise(i + 1, MIB / 2)] as const);
  await writeTars(t, layout, 'it', [tarOf(Object.fromEntries(files))]);
  return layout;
}

test('a store that cannot be where it should ends the pull before anybody is asked', async (t) => {
  const registry = await startSandbox(t);
  const file = join(temporaryDirectory(t), 'file');
  writeFileSync(file, '');
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store: join(file, 'store') }));
  assert.deepEqual([error.code, error.exitCode], ['store-broken', 7]);
  assert.ok(error.message.includes(file));
  assert.equal(registry.requests.length, 0);
});

test('a store on a file system that is read-only gives what it has and takes nothing', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t);
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  const first = await pull(`${registry.host}/x:chunked-v1`, { store });
  makeReadOnly(disk);
  const held = await pull(`${registry.host}/x:chunked-v1`, { store, policy: 'missing' });
  assert.equal(held.result.digest, first.result.digest);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
  await assertProven(held.result, temporaryDirectory(t));
  const error = await failureOf(pull(`${registry.host}/x:chunked-v2`, { store }));
  assert.deepEqual([error.code, error.exitCode], ['store-denied', 7]);
  assert.match(error.message, /read-only/);
});

test('a disk that is too small is told before any content is asked for', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t, { layout: await sixMebibytes(t) });
  const error = await failureOf(pull(`${registry.host}/x:it`, { store: smallDisk(t, 4 * MIB) }));
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7]);
  assert.match(error.message, /\d+ bytes are missing/);
  assert.equal(layerAsks(registry).length, 1); // the metadata
});

test('a disk that fills up during the pull ends it; with space again the next pull goes on', {
  skip: skipUnlessMount(),
}, async (t) => {
  const layout = await sixMebibytes(t);
  const registry = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  let filler: string | undefined;
  const error = await failureOf(
    pull(`${registry.host}/x:it`, {
      store,
      connections: 4,
      onEvent: (event) => {
        if (event.event === 'progress' && event.writtenBytes > 2 * MIB) filler ??= fillDisk(disk);
      },
    }),
  );
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7], error.message);
  assert.ok(error.hint !== undefined);
  assert.deepEqual(listedImages(store), []);
  rmSync(filler!);
  const { result } = await pull(`${registry.host}/x:it`, { store });
  await assertProven(result);
  assert.ok(result.resumedBytes > MIB, `${result.resumedBytes}`);
  assert.ok(holdsLayer(store, result.layers[0]!.diffId));
});
