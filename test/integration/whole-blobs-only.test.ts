import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/index.js';
import type { FaultAction } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { largerImage } from '../support/larger-image.js';
import { addLayer, emptyLayout, nameImage, noise, readBlob, readManifest, tarOf } from '../support/layout.js';
import { assertProven, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** How a registry gives no ranges. */
const WAYS: Readonly<Record<string, FaultAction>> = {
  'ignores ranges': { ignoreRange: true },
  'refuses ranges': { status: 416 },
};

/** An image `plain` of layers of `sizesMiB` that gzip cannot make smaller. */
async function plainImage(t: TestContext, ...sizesMiB: number[]) {
  const layout = emptyLayout(t);
  const tars = sizesMiB.map((size, i) => tarOf({ [`file${i}`]: noise(i + 1, size * 2 ** 20) }));
  const layers = await Promise.all(tars.map((tar) => addLayer(layout, tar, '+gzip')));
  const diffIds = tars.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`);
  nameImage(layout, 'plain', layers, diffIds);
  return layout;
}

/** A registry over a layout that gives no ranges of blobs in one of the ways. */
function startWithout(t: TestContext, layout: string, action: FaultAction) {
  const match = { path: '/blobs/', range: 'any' };
  return startSandbox(t, { layout, faults: [{ match, action }] });
}

/** Fails unless each layer came once and no more than a tenth besides. `besides`: responses that were closed at their heads. */
function assertSentOnce(
  registry: SandboxRegistry,
  layout: string,
  image: string,
  fetchedBytes: number,
  besides = 0,
): void {
  const { layers } = readManifest(layout, image);
  for (const { digest } of layers) {
    const whole = registry.requests.filter(({ path, status }) => path.endsWith(digest) && status === 200);
    assert.ok(whole.length >= 1 && whole.length <= 1 + besides, `${whole.length} times ${digest}`);
  }
  const sizeBytes = layers.reduce((sum, { size }) => sum + size, 0);
  assert.ok(fetchedBytes <= 1.1 * sizeBytes, `${fetchedBytes} of ${sizeBytes} bytes`);
}

for (const [what, action] of Object.entries(WAYS)) {
  test(`a registry that ${what} sends a layer of one stream once`, async (t) => {
    const layout = await plainImage(t, 12);
    const registry = await startWithout(t, layout, action);
    const options = { store: temporaryDirectory(t), connections: 16, workers: 4 };
    const { result } = await pull(`${registry.host}/x:plain`, options);
    await assertProven(result);
    assert.equal(result.misses, 0);
    assertSentOnce(registry, layout, 'plain', result.fetchedBytes);
  });

  test(`a registry that ${what} sends a chunked layer once, as one stream`, async (t) => {
    const { layout } = await largerImage(t, 24);
    const registry = await startWithout(t, layout, action);
    const options = { store: temporaryDirectory(t), connections: 16, workers: 4 };
    const { result, events } = await pull(`${registry.host}/x:larger`, options);
    await assertProven(result);
    assert.equal(result.misses, 0);
    assert.match(String(warnings(events)), /gives whole blobs only.*it is pulled as a whole/);
    assertSentOnce(registry, layout, 'larger', result.fetchedBytes);
  });
}

test('a copy from a registry that ignores ranges fetches each blob once', async (t) => {
  const layout = await plainImage(t, 8, 6);
  const registry = await startWithout(t, layout, { ignoreRange: true });
  const path = join(temporaryDirectory(t), 'copy');
  const { fetchedBytes } = await copyImage(`${registry.host}/x:plain`, {
    destination: { kind: 'layout', path },
  });
  for (const { digest } of readManifest(layout, 'plain').layers)
    assert.ok(readBlob(path, digest).equals(readBlob(layout, digest)));
  assertSentOnce(registry, layout, 'plain', fetchedBytes, 1);
});

test('later blobs of a registry that ignores ranges are asked for as a whole at once', async (t) => {
  const layout = await plainImage(t, 4, 1, 2, 3);
  const registry = await startWithout(t, layout, { ignoreRange: true });
  const options = { store: temporaryDirectory(t), connections: 2, workers: 2 };
  const { result } = await pull(`${registry.host}/x:plain`, options);
  await assertProven(result);
  for (const { digest } of readManifest(layout, 'plain').layers.slice(1))
    assert.equal(registry.requests.filter(({ path }) => path.endsWith(digest)).length, 1);
});
