import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FORMATS_LAYOUT } from '../support/fixture-layout.js';
import {
  addBlob,
  addJson,
  addLayer,
  emptyLayout,
  nameDocument,
  nameImage,
  noise,
  OCI_INDEX,
  OCI_MANIFEST,
  type Suffix,
  tarOf,
} from '../support/layout.js';
import { assertProven, failureOf, layerAsks, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const SUFFIXES: readonly Suffix[] = ['', '+gzip', '+zstd'];

test('an image of 200 layers in every compression is pulled', async (t) => {
  const layout = emptyLayout(t);
  const tars = Array.from({ length: 200 }, (_, i) => tarOf({ [`file-${i}`]: noise(i + 1, 10 * i) }));
  const layers = await Promise.all(tars.map((tar, i) => addLayer(layout, tar, SUFFIXES[i % 3]!)));
  nameImage(layout, 'it', layers, tars.map(digestOf));
  const registry = await startSandbox(t, { layout });
  const { result } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assert.deepEqual(
    result.layers.map(({ diffId, tarBytes }) => [diffId, tarBytes]),
    tars.map((tar) => [digestOf(tar), tar.length]),
  );
  assertProven(result);
  assert.deepEqual([result.requests, layerAsks(registry).length], [200, 200]);
});

const NOTHING = Buffer.alloc(0);
const END_ONLY = Buffer.alloc(1024);

for (const [what, tar] of [
  ['nothing but the end of an archive', END_ONLY],
  ['nothing at all', NOTHING],
] as const) {
  test(`a layer of ${what} is pulled, in every compression`, async (t) => {
    const layout = emptyLayout(t);
    for (const [i, suffix] of SUFFIXES.entries())
      nameImage(layout, `it-${i}`, [await addLayer(layout, tar, suffix)], [digestOf(tar)]);
    const { host } = await startSandbox(t, { layout });
    for (const [i, suffix] of SUFFIXES.entries()) {
      const { result } = await pull(`${host}/x:it-${i}`, { store: temporaryDirectory(t) });
      assert.deepEqual([result.layers[0]!.tarBytes, result.reusedBytes], [tar.length, 0], suffix);
      assertProven(result);
    }
  });
}

test('a layer that an image has several times, in several compressions, is fetched once', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ a: noise(1, 50_000) });
  const other = tarOf({ b: noise(2, 3000) });
  const [plain, gzip, zstd] = await Promise.all(SUFFIXES.map((suffix) => addLayer(layout, tar, suffix)));
  const between = await addLayer(layout, other, '+gzip');
  const layers = [gzip!, between, gzip!, zstd!, plain!, between];
  nameImage(layout, 'it', layers, [tar, other, tar, tar, tar, other].map(digestOf));
  const registry = await startSandbox(t, { layout });
  const { result } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.deepEqual(
    layerAsks(registry)
      .map(({ path }) => path.slice(-71))
      .toSorted(),
    [gzip!.digest, between.digest].toSorted(),
  );
  assert.deepEqual(
    result.layers.map(({ requests, reusedBytes }) => [requests, reusedBytes]),
    [1, 1, 0, 0, 0, 0].map((requests, i) => [
      requests,
      requests === 1 ? 0 : [tar, other][i === 5 ? 1 : 0]!.length,
    ]),
  );
});

test('an artifact that is not an image is refused with an error that names its media type', async (t) => {
  const layout = emptyLayout(t);
  const config = addJson(layout, 'application/vnd.cncf.helm.config.v1+json', {});
  const chart = addBlob(layout, noise(1, 1000));
  const mediaType = 'application/vnd.cncf.helm.chart.content.v1.tar+gzip';
  const layers = [{ mediaType, digest: chart, size: 1000 }];
  nameDocument(layout, 'chart', OCI_MANIFEST, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
  const empty = addJson(layout, 'application/vnd.oci.empty.v1+json', {});
  nameDocument(layout, 'sbom', OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: 'application/spdx+json',
    config: empty,
    layers: [{ mediaType: 'application/spdx+json', digest: chart, size: 1000 }],
  });
  const registry = await startSandbox(t, { layout });
  for (const [ref, names] of [
    ['chart', config.mediaType],
    ['sbom', empty.mediaType],
  ] as const) {
    const error = await failureOf(pull(`${registry.host}/x:${ref}`, { store: temporaryDirectory(t) }));
    assert.deepEqual([error.code, error.exitCode], ['unsupported', 8]);
    assert.ok(error.message.includes(names), error.message);
    assert.match(error.hint ?? '', /oras/);
  }
  assert.equal(layerAsks(registry).length, 0);
});

test('an image is found by the digest of its index and by that of its manifest, also after a tag', async (t) => {
  const registry = await startSandbox(t, { layout: FORMATS_LAYOUT });
  const digestAt = async (tag: string) => {
    const { headers } = await fetch(`${registry.origin}/v2/x/manifests/${tag}`, { method: 'HEAD' });
    return headers.get('docker-content-digest')!;
  };
  const [index, gzip, plain] = await Promise.all(['index', 'gzip', 'plain'].map(digestAt));
  const store = temporaryDirectory(t);
  for (const [name, digest] of [
    [`x@${index}`, plain],
    [`x:gzip@${index}`, plain],
    [`x@${gzip}`, gzip],
    [`x:index@${gzip}`, gzip],
    [`x:no-such-tag@${plain}`, plain],
  ]) {
    const { result } = await pull(`${registry.host}/${name}`, { store, platform: 'linux/arm64' });
    assert.equal(result.digest, digest, name);
  }
  assertProven((await pull(`${registry.host}/x@${index}`, { store, platform: 'linux/arm64' })).result);
});

/** An index with these platforms, `os/architecture[/variant]`; a mark makes it the zstd twin. Returns digest by platform. */
async function indexOf(t: TestContext, layout: string, platforms: readonly string[]) {
  const tar = tarOf({ a: noise(1, 3000) });
  const layer = await addLayer(layout, tar, '+gzip');
  const names = new Map<string, string>();
  const manifests = platforms.map((name) => {
    const [platform = '', mark] = name.split(' ');
    const [os = '', architecture = '', variant] = platform.split('/');
    const fields = { os, architecture, ...(variant === undefined ? {} : { variant }) };
    const config = addJson(layout, 'application/vnd.oci.image.config.v1+json', {
      ...fields,
      comment: name,
      rootfs: { type: 'layers', diff_ids: [digestOf(tar)] },
    });
    const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] };
    const descriptor = addJson(layout, OCI_MANIFEST, manifest);
    names.set(descriptor.digest, name);
    const annotations = { 'io.github.containers.compression.zstd': 'true' };
    return { ...descriptor, platform: fields, ...(mark === undefined ? {} : { annotations }) };
  });
  nameDocument(layout, 'it', OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  return async (platform: string) => {
    const pulled = await pull(`${host}/x:it`, { store, platform });
    assert.deepEqual(warnings(pulled.events), []);
    return names.get(pulled.result.digest);
  };
}

test('the platform that containerd would choose is pulled from an index', async (t) => {
  const chosen = await indexOf(t, emptyLayout(t), [
    'unknown/unknown',
    'linux/arm/v5',
    'linux/arm/v7',
    'linux/arm/v6',
    'linux/amd64/v3',
    'linux/amd64',
    'linux/amd64/v2',
    'linux/arm64/v8',
    'linux/386',
    'linux/ppc64le',
    'linux/ppc64le zstd',
    'windows/amd64',
  ]);
  for (const [wanted, expected] of [
    ['linux/arm64', 'linux/arm64/v8'],
    ['linux/arm64/v8', 'linux/arm64/v8'],
    ['linux/arm64/v9', 'linux/arm64/v8'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/v8', 'linux/arm/v7'],
    ['linux/arm/v6', 'linux/arm/v6'],
    ['linux/arm/v5', 'linux/arm/v5'],
    ['linux/amd64', 'linux/amd64'],
    ['linux/amd64/v2', 'linux/amd64/v2'],
    ['linux/amd64/v4', 'linux/amd64/v3'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/aarch64', 'linux/arm64/v8'],
    ['linux/ppc64le', 'linux/ppc64le zstd'],
  ] as const) {
    assert.equal(await chosen(wanted), expected, wanted);
  }
});

test('arm falls back to v6 and v5 where there is no v7, and never upwards', async (t) => {
  const chosen = await indexOf(t, emptyLayout(t), ['unknown/unknown', 'linux/arm/v6', 'linux/amd64/v3']);
  assert.equal(await chosen('linux/arm/v7'), 'linux/arm/v6');
  assert.equal(await chosen('linux/amd64/v3'), 'linux/amd64/v3');
  for (const platform of [
    'linux/arm/v5',
    'linux/amd64',
    'linux/amd64/v2',
    'linux/arm64',
    'unknown/unknown',
  ]) {
    const error = await failureOf(chosen(platform));
    assert.deepEqual([error.code, error.exitCode], ['platform-not-found', 3], platform);
  }
});
