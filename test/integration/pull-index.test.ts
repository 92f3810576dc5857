import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import {
  addJson,
  type DescriptorJson,
  emptyLayout,
  nameDocument,
  nameImage,
  noise,
  OCI_INDEX,
  OCI_MANIFEST,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { assertProven, failureOf, listedImages, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

type Entry = DescriptorJson & { platform: { os: string; architecture: string; variant?: string } };

/** One image a name, each with a layer of its own, and their descriptors by name. */
async function images<Name extends string>(
  t: TestContext,
  layout: string,
  ...names: Name[]
): Promise<Record<Name, DescriptorJson>> {
  const found: Partial<Record<Name, DescriptorJson>> = {};
  for (const [i, name] of names.entries()) {
    await writeTars(t, layout, name, [tarOf({ [name]: noise(i + 1, 3000) })]);
    const manifest = readManifest(layout, name);
    found[name] = addJson(layout, OCI_MANIFEST, { ...manifest });
  }
  return found as Record<Name, DescriptorJson>;
}

function entry(descriptor: DescriptorJson, os: string, architecture: string, variant?: string): Entry {
  return {
    ...descriptor,
    platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
  };
}

function nameIndex(layout: string, ref: string, manifests: readonly DescriptorJson[]): DescriptorJson {
  return nameDocument(layout, ref, OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
}

async function severalPlatforms(t: TestContext) {
  const layout = emptyLayout(t);
  const found = await images(t, layout, 'amd64', 'arm64', 'attestation');
  const { amd64, arm64, attestation } = found;
  // The attestation comes first: whoever takes the first entry, or matches loosely, takes it.
  const index = nameIndex(layout, 'several', [
    entry(attestation, 'unknown', 'unknown'),
    entry(amd64, 'linux', 'amd64'),
    entry(arm64, 'linux', 'arm64', 'v8'),
  ]);
  return { layout, index, ...found };
}

test('the manifest of an index for the requested platform is pulled', async (t) => {
  const { layout, amd64, arm64 } = await severalPlatforms(t);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const image = `${registry.host}/x:several`;
  for (const [platform, wanted] of [
    ['linux/amd64', amd64],
    ['linux/arm64', arm64],
    ['linux/arm64/v8', arm64],
  ] as const) {
    const { result } = await pull(image, { store, platform });
    assert.equal(result.digest, wanted.digest, platform);
    assertProven(result);
  }
  const asked = registry.requests.map(({ path }) => path);
  assert.ok(!asked.some((path) => path.endsWith(readManifest(layout, 'attestation').layers[0]!.digest)));
});

test('an index in an index is followed once, not endlessly', async (t) => {
  const { layout, index, amd64 } = await severalPlatforms(t);
  const nested = nameIndex(layout, 'nested', [entry(index, 'linux', 'amd64')]);
  const deeper = nameIndex(layout, 'deeper', [entry(nested, 'linux', 'amd64')]);
  nameIndex(layout, 'deepest', [entry(deeper, 'linux', 'amd64')]);
  const registry = await startSandbox(t, { layout });
  const options = { store: temporaryDirectory(t), platform: 'linux/amd64' };
  assert.equal((await pull(`${registry.host}/x:nested`, options)).result.digest, amd64.digest);
  const error = await failureOf(pull(`${registry.host}/x:deepest`, options));
  assert.deepEqual([error.code, error.exitCode], ['unsupported', 8]);
});

test('a manifest without an index is pulled for any platform, with a warning when it is for another one', async (t) => {
  const registry = await startSandbox(t);
  for (const [platform, count] of [
    ['linux/amd64', 0],
    ['linux/arm64', 1],
  ] as const) {
    const { events } = await pull(`${registry.host}/x:chunked-v1`, {
      store: temporaryDirectory(t),
      platform,
    });
    const told = events.filter((event) => event.event === 'warning');
    assert.equal(told.length, count, JSON.stringify(told));
  }
});

test('a platform that an index does not have is not found, and the error names its platforms', async (t) => {
  const { layout } = await severalPlatforms(t);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  for (const platform of ['linux/s390x', 'windows/amd64', 'unknown/unknown']) {
    const error = await failureOf(pull(`${registry.host}/x:several`, { store, platform }));
    assert.deepEqual([error.code, error.exitCode], ['platform-not-found', 3], platform);
    assert.ok(error.message.includes(platform));
    assert.match(error.hint ?? '', /linux\/amd64, linux\/arm64/);
    assert.doesNotMatch(error.hint ?? '', /unknown/);
  }
});

test('one reference for two platforms is two images in the store', async (t) => {
  const { layout, amd64, arm64 } = await severalPlatforms(t);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const image = `${registry.host}/x:several`;
  await pull(image, { store, platform: 'linux/amd64' });
  const never = await failureOf(pull(image, { store, platform: 'linux/arm64', policy: 'never' }));
  assert.equal(never.code, 'image-not-found');
  await pull(image, { store, platform: 'linux/arm64' });
  for (const [platform, wanted] of [
    ['linux/amd64', amd64],
    ['linux/arm64', arm64],
  ] as const) {
    const { result } = await pull(image, { store, platform, policy: 'never' });
    assert.equal(result.digest, wanted.digest);
  }
});

test('an index entry whose manifest has another digest is refused', async (t) => {
  const layout = emptyLayout(t);
  const { amd64 } = await images(t, layout, 'amd64');
  nameIndex(layout, 'several', [entry(amd64, 'linux', 'amd64')]);
  const registry = await startSandbox(t, {
    layout,
    faults: [{ match: { path: amd64.digest }, action: { flipByteAt: 20 } }],
  });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:several`, { store, platform: 'linux/amd64' }));
  assert.deepEqual([error.code, error.exitCode], ['digest-mismatch', 6]);
  assert.ok(error.message.includes(amd64.digest));
  assert.deepEqual(listedImages(store), []);
});

test('a manifest that is requested by digest and wrong once is requested again', async (t) => {
  const layout = emptyLayout(t);
  const { amd64 } = await images(t, layout, 'amd64');
  const registry = await startSandbox(t, {
    layout,
    faults: [{ match: { path: amd64.digest, nth: 1 }, action: { flipByteAt: 20 } }],
  });
  const { result } = await pull(`${registry.host}/x@${amd64.digest}`, { store: temporaryDirectory(t) });
  assert.equal(result.digest, amd64.digest);
});

test('a layer whose media type is not that of a layer is refused with an error that names both', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'good', [tarOf({ a: noise(1, 3000) })]);
  const manifest = readManifest(layout, 'good');
  const good = manifest.layers[0]!;
  const layer: DescriptorJson = { ...good, mediaType: 'application/x-something' };
  nameImage(layout, 'it', [good, layer], [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`]);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:it`, { store }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['unsupported', 8, layer.digest]);
  assert.match(error.message, /application\/x-something/);
  assert.deepEqual(listedImages(store), []);
});
