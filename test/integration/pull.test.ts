import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseDigest } from '../../src/format/digest.js';
import { blobPath, storePaths } from '../../src/store/paths.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import {
  changeImage,
  fixtureCopy,
  nameImage,
  noise,
  readConfig,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { skipUnless } from '../support/programs.js';
import { askedBytes, assertProven, failureOf, layerAsks, onlyEvent, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

test('both fixtures pulled from the sandbox are the tars of their DiffIDs, and the second reuses the first', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const first = await pull(`${registry.host}/some/name:chunked-v1`, { store });
  const config = readConfig(FIXTURE_LAYOUT, readManifest(FIXTURE_LAYOUT, 'chunked-v1'));
  assert.deepEqual(
    first.result.layers.map(({ diffId }) => diffId),
    config.rootfs.diff_ids,
  );
  assert.equal(first.result.reusedBytes, 0);
  assertProven(first.result);

  const second = await pull(`${registry.host}/some/name:chunked-v2`, { store });
  assertProven(second.result);
  const blobBytes = second.result.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  // v2's changed files are incompressible: half of its blob is new.
  assert.ok(second.result.fetchedBytes < 0.6 * blobBytes, `${second.result.fetchedBytes} of ${blobBytes}`);
  assert.ok(second.result.reusedBytes > 2 * second.result.fetchedBytes, `${second.result.reusedBytes}`);
  assertProven(first.result);
});

test('both fixtures pulled from docker-registry are the tars of their DiffIDs', {
  skip: skipUnless('skopeo', 'docker-registry'),
}, async (t) => {
  const docker = await startDockerRegistry();
  t.after(() => docker.stop());
  const store = temporaryDirectory(t);
  for (const ref of ['chunked-v1', 'chunked-v2']) {
    await docker.fill(FIXTURE_LAYOUT, ref, `some/name:${ref}`);
    const { result } = await pull(`${docker.host}/some/name:${ref}`, { store });
    assertProven(result);
    assert.equal(result.reusedBytes > 0, ref === 'chunked-v2');
  }
});

test('what a result counts is what the registry was asked for', async (t) => {
  const registry = await startSandbox(t);
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  const asks = layerAsks(registry);
  assert.equal(result.requests, asks.length);
  assert.equal(result.fetchedBytes, askedBytes(asks));
  for (const layer of result.layers) {
    const own = asks.filter(({ path }) => path.endsWith(layer.digest));
    assert.equal(layer.requests, own.length);
    assert.equal(layer.fetchedBytes, askedBytes(own));
  }
});

test('an image that the store has is looked up and not fetched again', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${registry.host}/some/name:chunked-v1`;
  const first = await pull(image, { store });
  const asked = registry.requests.length;
  const { result } = await pull(image, { store });
  assert.deepEqual(
    registry.requests.slice(asked).map(({ method, path }) => [method, path]),
    [['HEAD', '/v2/some/name/manifests/chunked-v1']],
  );
  assert.equal(result.digest, first.result.digest);
  assert.equal(result.fetchedBytes, 0);
  assert.equal(result.requests, 0);
  assert.equal(
    result.reusedBytes,
    result.layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0),
  );
  assertProven(result);
});

test('a HEAD that is not allowed, or names what the store does not have, is followed by a GET', async (t) => {
  const digest = `sha256:${'1'.repeat(64)}`;
  for (const action of [
    ...[400, 403, 404, 405, 501].map((status) => ({ status })),
    { status: 200, headers: { 'Docker-Content-Digest': digest } },
    { status: 200, headers: { 'Docker-Content-Digest': '../../etc/passwd' } },
    { status: 200 },
  ]) {
    const registry = await startSandbox(t, { faults: [{ match: { method: 'HEAD' }, action }] });
    const store = temporaryDirectory(t);
    const image = `${registry.host}/some/name:chunked-v1`;
    const first = await pull(image, { store });
    const asked = registry.requests.length;
    const { result } = await pull(image, { store });
    assert.deepEqual(
      registry.requests.slice(asked).map(({ method }) => method),
      ['HEAD', 'GET'],
      String(action.status),
    );
    assert.deepEqual([result.digest, result.misses], [first.result.digest, 0]);
  }
});

test('a manifest that is damaged in the store is fetched, whatever a HEAD says', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${registry.host}/some/name:chunked-v1`;
  const { digest } = (await pull(image, { store })).result;
  writeFileSync(blobPath(storePaths(store), parseDigest(digest, 'digest')), '{}');
  const asked = registry.requests.length;
  assert.equal((await pull(image, { store })).result.digest, digest);
  assert.deepEqual(
    registry.requests.slice(asked).map(({ method }) => method),
    ['HEAD', 'GET'],
  );
});

test('the policies missing and never ask nobody about an image that the store has', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${registry.host}/some/name:chunked-v1`;
  const absent = await failureOf(pull(image, { store, policy: 'never' }));
  assert.equal(absent.code, 'image-not-found');
  assert.equal(registry.requests.length, 0);
  const first = await pull(image, { store, policy: 'missing' });
  const asked = registry.requests.length;
  assert.ok(asked > 0);
  for (const policy of ['missing', 'never'] as const) {
    const { result } = await pull(image, { store, policy });
    assert.deepEqual(
      [result.digest, result.platform, result.fetchedBytes, result.requests],
      [first.result.digest, first.result.platform, 0, 0],
    );
  }
  assert.equal(registry.requests.length, asked);
});

test('the policy always sees that a tag has moved, missing does not', async (t) => {
  const layout = fixtureCopy(t);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const image = `${registry.host}/x:chunked-v1`;
  const first = await pull(image, { store });
  changeImage(layout, 'chunked-v1', (manifest) => {
    Object.assign(manifest, readManifest(layout, 'chunked-v2'));
  });
  assert.equal((await pull(image, { store, policy: 'missing' })).result.digest, first.result.digest);
  const moved = await pull(image, { store });
  assert.notEqual(moved.result.digest, first.result.digest);
  assertProven(moved.result);
});

test('an image is found by digest, and by a digest behind any tag', async (t) => {
  const registry = await startSandbox(t);
  const byTag = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  const { digest } = byTag.result;
  for (const name of [`x@${digest}`, `x:chunked-v2@${digest}`, `x:no-such-tag@${digest}`]) {
    const { result } = await pull(`${registry.host}/${name}`, { store: temporaryDirectory(t) });
    assert.equal(result.digest, digest, name);
  }
});

test('a tag or digest that the registry does not have is not found', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  for (const name of ['some/name:nothing', `some/name@sha256:${'0'.repeat(64)}`]) {
    const error = await failureOf(pull(`${registry.host}/${name}`, { store }));
    assert.equal(error.code, 'image-not-found');
    assert.equal(error.exitCode, 3);
    assert.match(error.message, /some\/name/);
  }
});

test('an image that docker-registry does not have is not found', {
  skip: skipUnless('docker-registry'),
}, async (t) => {
  const docker = await startDockerRegistry();
  t.after(() => docker.stop());
  const error = await failureOf(pull(`${docker.host}/some/name:nothing`, { store: temporaryDirectory(t) }));
  assert.deepEqual([error.code, error.exitCode], ['image-not-found', 3]);
});

test('a blob that the manifest names and the registry does not have is not found, naming the layer', async (t) => {
  const layout = fixtureCopy(t);
  const missing = `sha256:${'1'.repeat(64)}`;
  changeImage(layout, 'chunked-v1', ({ layers }) => {
    layers[1]!.digest = missing;
  });
  const registry = await startSandbox(t, { layout });
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['blob-not-found', 3, missing]);
});

test('a layer that stands twice in an image is fetched and counted once', async (t) => {
  const layout = fixtureCopy(t);
  const { layers, ...manifest } = readManifest(layout, 'chunked-v1');
  const { diff_ids } = readConfig(layout, { ...manifest, layers }).rootfs;
  nameImage(layout, 'twice', [...layers, layers[0]!], [...diff_ids, diff_ids[0]!]);
  const registry = await startSandbox(t, { layout });
  const { result } = await pull(`${registry.host}/x:twice`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.layers.length, 4);
  const asks = layerAsks(registry);
  assert.equal(result.fetchedBytes, askedBytes(asks));
  assert.equal(result.requests, asks.length);
  assert.equal(result.layers[3]!.fetchedBytes, 0);
  assert.equal(result.layers[3]!.reusedBytes, result.layers[3]!.tarBytes);
  assert.equal(result.layers[3]!.tarBytes, result.layers[0]!.tarBytes);
});

test('an image in Docker schema 2 is pulled like one in OCI', async (t) => {
  const layout = fixtureCopy(t);
  changeImage(layout, 'chunked-v1', (manifest) => {
    manifest.mediaType = 'application/vnd.docker.distribution.manifest.v2+json';
    manifest.config.mediaType = 'application/vnd.docker.container.image.v1+json';
    for (const layer of manifest.layers)
      layer.mediaType = 'application/vnd.docker.image.rootfs.diff.tar.zstd';
  });
  const registry = await startSandbox(t, { layout });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assert.deepEqual(
    result.layers.map(({ format }) => format),
    ['zstd:chunked', 'zstd:chunked', 'zstd:chunked'],
  );
  assertProven(result);
});

test('a layer without any content, and an image without any layer, are pulled', async (t) => {
  const layout = fixtureCopy(t);
  await writeTars(t, layout, 'hollow', [tarOf({ empty: Buffer.alloc(0) }), tarOf({ 'a/b': noise(1, 5000) })]);
  nameImage(layout, 'nothing', [], []);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const { result } = await pull(`${registry.host}/x:hollow`, { store });
  assertProven(result);
  const nothing = await pull(`${registry.host}/x:nothing`, { store });
  assert.deepEqual(nothing.result.layers, []);
});

test('the totals are told before the first content byte is asked for, and are what is then asked for', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  for (const ref of ['chunked-v1', 'chunked-v2']) {
    const from = registry.requests.length;
    let askedBefore: number | undefined;
    const pulled = await pull(`${registry.host}/x:${ref}`, {
      store,
      onEvent: ({ event }) => {
        if (event === 'planned') askedBefore = registry.requests.length;
      },
    });
    const planned = onlyEvent(pulled, 'planned');
    const metadata = layerAsks(registry).filter((ask) => registry.requests.indexOf(ask) < askedBefore!);
    const asks = layerAsks(registry).filter((ask) => registry.requests.indexOf(ask) >= from);
    const content = asks.filter((ask) => !metadata.includes(ask));
    assert.equal(askedBytes(content), planned.fetchBytes, ref);
    assert.equal(askedBytes(asks), planned.totalBytes, ref);
    assert.equal(asks.length, planned.requests, ref);
    assert.equal(pulled.result.fetchedBytes, planned.totalBytes, ref);
    const { reuseBytes } = planned;
    const held = pulled.result.layers.filter(({ requests }) => requests === 0);
    const whole = held.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
    assert.equal(pulled.result.reusedBytes, reuseBytes + whole, ref);
  }
});

test('the last progress event of a pull says that all was received, written and verified', async (t) => {
  const registry = await startSandbox(t);
  const { result, events } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  const last = events.findLast((event) => event.event === 'progress');
  assert.ok(last?.event === 'progress');
  const tarBytes = result.layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
  assert.equal(last.receivedBytes, result.fetchedBytes);
  assert.equal(last.totalBytes, result.fetchedBytes);
  assert.equal(last.verifiedBytes, tarBytes);
});

test('content that several places of an image need is fetched once', async (t) => {
  const layout = fixtureCopy(t);
  const big = noise(7, 700_000);
  const other = noise(8, 300_000);
  await writeTars(t, layout, 'repeated', [
    tarOf({ a: big, between: other, b: big }),
    tarOf({ 'again/a': big, own: noise(9, 200_000) }),
    tarOf({ 'once/more': big, 'and/this': other }),
  ]);
  const registry = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const { result } = await pull(`${registry.host}/x:repeated`, { store });
  assertProven(result);
  const unique = 700_000 + 300_000 + 200_000;
  assert.ok(result.fetchedBytes >= unique && result.fetchedBytes < 1.02 * unique, `${result.fetchedBytes}`);
});
