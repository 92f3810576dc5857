import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { LayerFormat } from '../../src/api/pull.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { DIALECT_LAYOUT, FIXTURE_LAYOUT, FORMATS_LAYOUT, V2S2_DIRECTORY } from '../support/fixture-layout.js';
import {
  type DescriptorJson,
  emptyLayout,
  type ManifestJson,
  nameDocument,
  readConfig,
  readManifest,
} from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { skipUnless } from '../support/programs.js';
import {
  askedBytes,
  assertAskedOnce,
  assertProven,
  layerAsks,
  onlyEvent,
  pull,
  warnings,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

/** The Docker schema 2 fixture in a layout that a sandbox can serve, as `v2s2`; its manifest's descriptor. */
function v2s2Layout(t: TestContext): { layout: string; manifest: DescriptorJson } {
  const layout = emptyLayout(t);
  for (const name of readdirSync(V2S2_DIRECTORY).filter((file) => /^[0-9a-f]{64}$/.test(file)))
    copyFileSync(join(V2S2_DIRECTORY, name), join(layout, 'blobs', 'sha256', name));
  const manifest = JSON.parse(readFileSync(join(V2S2_DIRECTORY, 'manifest.json'), 'utf8')) as ManifestJson;
  return { layout, manifest: nameDocument(layout, 'v2s2', DOCKER_MANIFEST, manifest) };
}

/** What other people's tools wrote, and what it is known as. */
const FIXTURES: ReadonlyArray<readonly [layout: string, ref: string, format: LayerFormat]> = [
  [FIXTURE_LAYOUT, 'chunked-v1', 'zstd:chunked'],
  [DIALECT_LAYOUT, 'old', 'zstd:chunked-no-tarsplit'],
  [DIALECT_LAYOUT, 'nerdctl', 'zstd:chunked-no-tarsplit'],
  [DIALECT_LAYOUT, 'estargz', 'estargz'],
  [FORMATS_LAYOUT, 'gzip', 'gzip'],
  [FORMATS_LAYOUT, 'zstd', 'zstd'],
  [FORMATS_LAYOUT, 'plain', 'tar'],
];

/** The layers of FORMATS_LAYOUT and of v2s2 are chunked-v1's, in other words. */
const DIFF_IDS = readConfig(FORMATS_LAYOUT, readManifest(FORMATS_LAYOUT, 'gzip')).rootfs.diff_ids;

for (const [layout, ref, format] of FIXTURES) {
  test(`the fixture ${ref} is pulled with the tars of its DiffIDs, and its requests are counted`, async (t) => {
    const registry = await startSandbox(t, { layout });
    const store = temporaryDirectory(t);
    const { result, events } = await pull(`${registry.host}/x:${ref}`, { store });
    const { diff_ids } = readConfig(layout, readManifest(layout, ref)).rootfs;
    assert.deepEqual(
      result.layers.map((layer) => [layer.diffId, layer.format]),
      diff_ids.map((diffId) => [diffId, format]),
    );
    assertProven(result);
    assert.deepEqual(warnings(events), []);
    const asks = layerAsks(registry);
    assert.deepEqual([result.requests, result.fetchedBytes], [asks.length, askedBytes(asks)]);
    const planned = onlyEvent({ events }, 'planned');
    assert.deepEqual([planned.requests, planned.totalBytes], [asks.length, askedBytes(asks)]);
    assertAskedOnce(asks);
    assert.deepEqual(packFiles(store, '.idx.open'), []);
  });
}

test('a layer whose DiffID is in the store is not fetched in any compression', async (t) => {
  const registry = await startSandbox(t, { layout: FORMATS_LAYOUT });
  const chunked = await startSandbox(t);
  const { layout } = v2s2Layout(t);
  const docker = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  await pull(`${registry.host}/x:gzip`, { store });
  const asked = layerAsks(registry).length;
  for (const image of [
    `${registry.host}/x:zstd`,
    `${registry.host}/x:plain`,
    `${chunked.host}/x:chunked-v1`,
    `${docker.host}/x:v2s2`,
  ]) {
    const { result } = await pull(image, { store });
    const tarBytes = result.layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
    assert.deepEqual([result.requests, result.fetchedBytes, result.reusedBytes], [0, 0, tarBytes], image);
    assertProven(result);
  }
  assert.equal(layerAsks(registry).length, asked);
  assert.equal(layerAsks(chunked).length + layerAsks(docker).length, 0);
});

for (const [platform, format, ref] of [
  ['linux/amd64', 'zstd:chunked', 'chunked-v1'],
  ['linux/arm64', 'tar', 'plain'],
] as const) {
  test(`the fixture index is ${ref} for ${platform}`, async (t) => {
    const { host } = await startSandbox(t, { layout: FORMATS_LAYOUT });
    const { result } = await pull(`${host}/x:index`, { store: temporaryDirectory(t), platform });
    assert.deepEqual(
      result.layers.map((layer) => [layer.diffId, layer.format]),
      DIFF_IDS.map((diffId) => [diffId, format]),
    );
    assertProven(result);
  });
}

test('the fixture v2s2 is pulled as Docker schema 2, from the sandbox', async (t) => {
  const { layout, manifest } = v2s2Layout(t);
  const registry = await startSandbox(t, { layout });
  const served = await fetch(`${registry.origin}/v2/x/manifests/v2s2`);
  assert.equal(served.headers.get('content-type'), DOCKER_MANIFEST);
  const { result } = await pull(`${registry.host}/x:v2s2`, { store: temporaryDirectory(t) });
  assert.equal(result.digest, manifest.digest);
  assert.deepEqual(
    result.layers.map((layer) => [layer.diffId, layer.format, layer.mediaType]),
    DIFF_IDS.map((diffId) => [diffId, 'gzip', 'application/vnd.docker.image.rootfs.diff.tar.gzip']),
  );
  assertProven(result);
});

test('the fixtures v2s2, old and estargz are pulled from docker-registry', {
  skip: skipUnless('skopeo', 'docker-registry'),
}, async (t) => {
  const docker = await startDockerRegistry();
  t.after(() => docker.stop());
  for (const [source, format] of [
    [`dir:${V2S2_DIRECTORY}`, 'gzip'],
    [`oci:${DIALECT_LAYOUT}:old`, 'zstd:chunked-no-tarsplit'],
    [`oci:${DIALECT_LAYOUT}:estargz`, 'estargz'],
  ] as const) {
    await docker.fillFrom(source, `some/name:${format.replace(':', '-')}`);
    const image = `${docker.host}/some/name:${format.replace(':', '-')}`;
    const { result } = await pull(image, { store: temporaryDirectory(t) });
    assert.ok(
      result.layers.every((layer) => layer.format === format),
      source,
    );
    assertProven(result);
  }
});
