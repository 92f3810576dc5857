import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { measureNetwork, type NetworkMeasurement, type NetworkOptions } from '../../src/api/measure.js';
import type { PullOptions } from '../../src/api/pull.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { registryTable, useRegistriesConf } from '../support/environment.js';
import { largerImage } from '../support/file-fixtures.js';
import { FIXTURE_LAYOUT, LAYER_DIGEST } from '../support/fixture-layout.js';
import { addLayer, emptyLayout, nameImage, noise, readManifest, tarOf } from '../support/layout.js';
import { askedBytes, assertAskedOnce, failureOf, firstEvent, layerAsks, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;

interface Image {
  readonly layout: string;
  readonly ref: string;
}

/** The bytes of the layers of an image. */
function layerBytes({ layout, ref }: Image): number {
  return readManifest(layout, ref).layers.reduce((sum, { size }) => sum + size, 0);
}

/** An image of gzip layers that cannot be made smaller. */
async function gzipImage(t: TestContext, ...sizesMiB: number[]): Promise<Image> {
  const layout = emptyLayout(t);
  const tars = sizesMiB.map((size, i) => tarOf({ file: noise(i + 1, size * MIB) }));
  const layers = await Promise.all(tars.map((tar) => addLayer(layout, tar, '+gzip')));
  const diffIds = tars.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`);
  nameImage(layout, 'plain', layers, diffIds);
  return { layout, ref: 'plain' };
}

/** Measures, and fails if anything was written to where the store would be. */
async function measure(
  t: TestContext,
  { host }: Pick<SandboxRegistry, 'host'>,
  ref: string,
  options: Partial<NetworkOptions> = {},
): Promise<NetworkMeasurement> {
  const directory = temporaryDirectory(t);
  try {
    return await measureNetwork(`${host}/x:${ref}`, { store: join(directory, 'store'), ...options });
  } finally {
    assert.deepEqual(readdirSync(directory), []);
  }
}

/** What was asked for. */
function rangesOf(asks: readonly RequestRecord[]): string[] {
  return asks.map(({ path, start, end }) => `${path} ${start}-${end}`);
}

test('every byte of every layer is received once and counted, and nothing is written', async (t) => {
  const images: Image[] = [
    { layout: FIXTURE_LAYOUT, ref: 'chunked-v1' },
    { ...(await largerImage(24)), ref: 'larger' },
    await gzipImage(t, 1, 9, 0),
  ];
  for (const image of images) {
    const registry = await startSandbox(t, { layout: image.layout, requireToken: {} });
    const result = await measure(t, registry, image.ref);
    const asks = layerAsks(registry).filter(({ status }) => status === 206);
    assertAskedOnce(asks);
    assert.equal(askedBytes(asks), layerBytes(image));
    assert.ok(asks.every(({ start, end }) => end! - start! <= 1.5 * 8 * MIB));
    const { bytes, requests, misses, durationMs, timeline, stages } = result;
    assert.deepEqual([stages.fetch.bytes, stages.decode.bytes, stages.write.bytes], [bytes, 0, 0]);
    assert.deepEqual([bytes, misses], [layerBytes(image), 0]);
    assert.equal(requests, layerAsks(registry).length);
    assert.deepEqual(timeline.at(-1), [durationMs, bytes]);
    assert.deepEqual(
      timeline,
      timeline.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]),
    );
  }
});

test('the ranges of opaque layers are those of a pull in their order, and those of a chunked one are as large', async (t) => {
  const opaque = await gzipImage(t, 3, 6);
  const [pulled, measured] = [await startSandbox(t, opaque), await startSandbox(t, opaque)];
  const options = { connections: 1 };
  await pull(`${pulled.host}/x:plain`, { store: temporaryDirectory(t), ...options });
  await measure(t, measured, 'plain', options);
  assert.deepEqual(rangesOf(layerAsks(measured)), rangesOf(layerAsks(pulled)));

  const chunked = await largerImage(24);
  const [whole, alone] = [await startSandbox(t, chunked), await startSandbox(t, chunked)];
  const { result } = await pull(`${whole.host}/x:larger`, { store: temporaryDirectory(t), ...options });
  const { requests } = await measure(t, alone, 'larger', options);
  // One is for the metadata. Files end where they end.
  assert.ok(Math.abs(requests - (result.requests - 1)) <= 3, `${requests}, a pull ${result.requests}`);
});

test('connections, the limit of the rate and mirrors hold as for a pull', async (t) => {
  const { layout } = await largerImage(24);
  const registry = await startSandbox(t, { layout, latencyMs: 20 });
  const { bytes, durationMs } = await measure(t, registry, 'larger', {
    connections: 3,
    workers: 2,
    limitRate: 12e6,
  });
  const connections = new Set(layerAsks(registry).map(({ connection }) => connection));
  assert.ok(connections.size <= 3, `${connections.size} connections`);
  // A busy machine is slower and never faster.
  assert.ok(durationMs > (0.9 * bytes * 1000) / 12e6, `${durationMs} ms`);

  const mirror = await startSandbox(t, { layout });
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const before = registry.requests.length;
  await measure(t, registry, 'larger');
  assert.equal(registry.requests.length, before);
  assert.equal(askedBytes(layerAsks(mirror)), bytes);
});

test('a store with manifest and config is asked for them, not the registry; its layers are fetched', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${registry.host}/x:chunked-v1`;
  const { result } = await pull(image, { store });
  const before = registry.requests.length;
  const { bytes, digest } = await measureNetwork(`${registry.host}/x@${result.digest}`, { store });
  assert.deepEqual(
    [bytes, digest],
    [layerBytes({ layout: FIXTURE_LAYOUT, ref: 'chunked-v1' }), result.digest],
  );
  const asked = registry.requests.slice(before).map(({ path }) => path);
  assert.ok(!asked.some((path) => path.includes('/manifests/')), asked.join());
});

test('a pull by digest into a store with manifest and config alone asks for neither', async (t) => {
  const registry = await startSandbox(t);
  const [seed, store] = [temporaryDirectory(t), temporaryDirectory(t)];
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: seed });
  cpSync(join(seed, 'v1', 'blobs'), join(store, 'v1', 'blobs'), { recursive: true });
  const before = registry.requests.length;
  const again = await pull(`${registry.host}/x@${result.digest}`, { store });
  assert.equal(again.result.fetchedBytes, result.fetchedBytes);
  const layers = again.result.layers.map((layer) => layer.digest);
  const asked = registry.requests.slice(before).map(({ path }) => path);
  const others = asked.filter((path) => !layers.some((digest) => path.endsWith(digest)));
  assert.deepEqual(
    others.filter((path) => path !== '/v2/'),
    [],
  );
});

const LAYER = { path: LAYER_DIGEST };

test('a server that asks to wait, cuts bodies, has no ranges or sends other bytes is measured', async (t) => {
  const size = layerBytes({ layout: FIXTURE_LAYOUT, ref: 'chunked-v1' });
  const wait = { status: 429, headers: { 'Retry-After': '1' } };
  const rules: Array<[FaultRule, number]> = [
    [{ match: { ...LAYER, nth: 1 }, action: wait }, 0],
    [{ match: { ...LAYER, nth: 1 }, action: { closeAfterBytes: 100_000 } }, 1],
    [{ match: LAYER, action: { shortRange: 100_000 } }, 0],
    [{ match: LAYER, action: { flipByteAt: 1000 } }, 0],
    [{ match: { path: '/blobs/', range: 'any' }, action: { status: 416 } }, 0],
  ];
  for (const [rule, expected] of rules) {
    const { bytes, misses } = await measure(t, await startSandbox(t, { faults: [rule] }), 'chunked-v1');
    assert.deepEqual([bytes, misses], [size, expected], JSON.stringify(rule));
  }
});

test('of a registry that ignores ranges, each blob is received once as a whole', async (t) => {
  const image = await gzipImage(t, 3, 3);
  const faults = [{ match: { path: '/blobs/' }, action: { ignoreRange: true } as const }];
  const registry = await startSandbox(t, { layout: image.layout, faults });
  // The second blob begins when it is known.
  const { bytes } = await measure(t, registry, image.ref, { connections: 1 });
  assert.ok(bytes >= layerBytes(image), `${bytes}`);
  for (const { digest, size } of readManifest(image.layout, image.ref).layers) {
    const sent = registry.requests.filter(({ path }) => path.endsWith(digest));
    assert.equal(sent.filter(({ sentBytes }) => sentBytes === size).length, 1, digest);
    assert.ok(sent.reduce((sum, { sentBytes }) => sum + sentBytes, 0) < 1.3 * size, digest);
  }
});

test('what ends a pull ends a measurement, with the same error', async (t) => {
  const rules: FaultRule[] = [
    { match: LAYER, action: { status: 404 } },
    { match: LAYER, action: { closeAfterBytes: 0 } },
    { match: LAYER, action: { wrongContentRange: 'bytes 0-1/2' } },
    { match: LAYER, action: { status: 429, headers: { 'Retry-After': '1000' } } },
    { match: { path: '/manifests/' }, action: { status: 404 } },
  ];
  for (const rule of rules) {
    const registry = await startSandbox(t, { faults: [rule] });
    const options: Partial<PullOptions> = { patienceMs: 50 };
    const pulling = pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t), ...options });
    const expected = await failureOf(pulling);
    const actual = await failureOf(measure(t, registry, 'chunked-v1', options));
    assert.deepEqual([actual.code, actual.exitCode], [expected.code, expected.exitCode]);
    assert.ok(actual.hint !== '', actual.message);
  }
});

test('a signal ends it at once, before and while bytes arrive', async (t) => {
  const { layout } = await largerImage(24);
  const registry = await startSandbox(t, { layout, rateBytes: 1e6 });
  const begun = firstEvent((event) => event.event === 'progress' && event.receivedBytes > 0);
  const controller = new AbortController();
  const measuring = measure(t, registry, 'larger', { signal: controller.signal, onEvent: begun.onEvent });
  await Promise.all([
    failureOf(measuring).then(({ code }) => assert.equal(code, 'interrupted')),
    begun.seen.then(() => controller.abort()),
  ]);
  const { code } = await failureOf(measure(t, registry, 'larger', { signal: AbortSignal.abort() }));
  assert.equal(code, 'interrupted');
});

test('an image of a layout is read from the disk', async (t) => {
  const store = join(temporaryDirectory(t), 'store');
  const { bytes, requests } = await measureNetwork(`oci:${FIXTURE_LAYOUT}:chunked-v1`, { store });
  assert.equal(bytes, layerBytes({ layout: FIXTURE_LAYOUT, ref: 'chunked-v1' }));
  assert.ok(requests >= 3 && !existsSync(store));
});
