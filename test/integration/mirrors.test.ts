import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { copyImage } from '../../src/api/copy.js';
import { inspectImage } from '../../src/api/pull.js';
import type { RegistryOptions, SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { registryTable, useRegistriesConf } from '../support/environment.js';
import { largerImage } from '../support/file-fixtures.js';
import { FIXTURE_LAYOUT, LAYER_DIGEST, MANIFEST_DIGEST } from '../support/fixture-layout.js';
import { addBlob, emptyLayout, nameImage, noise, readBlob, tarOf } from '../support/layout.js';
import { skipUnless } from '../support/programs.js';
import {
  askedBytes,
  assertProven,
  failureOf,
  layerAsks,
  onlyEvent,
  pull,
  warnings,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { listen } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

/** A registry and a mirror of it that registries.conf names. */
async function mirrored(
  t: TestContext,
  options: { mirror?: Partial<RegistryOptions>; registry?: Partial<RegistryOptions> } = {},
): Promise<{ mirror: SandboxRegistry; registry: SandboxRegistry }> {
  const mirror = await startSandbox(t, options.mirror);
  const registry = await startSandbox(t, options.registry);
  useRegistriesConf(t, registryTable(registry.host, [`${mirror.host}/cache`]));
  return { mirror, registry };
}

/** `host:port` where nobody listens. */
async function deadHost(): Promise<string> {
  const server = createServer();
  const host = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return host;
}

test('a mirror that has the image gets all requests, under its own name for the repository', async (t) => {
  const { mirror, registry } = await mirrored(t);
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.image, `${registry.host}/x:chunked-v1`);
  assert.equal(registry.requests.length, 0);
  assert.ok(mirror.requests.every(({ path }) => path.startsWith('/v2/cache/x/')));
});

test('when a mirror dies in the middle of a blob, the registry continues at the first byte not received', async (t) => {
  const { layout, digest } = await largerImage(12);
  const { mirror, registry } = await mirrored(t, {
    mirror: { layout, rateBytes: 2e6 },
    registry: { layout },
  });
  let closed: Promise<void> | undefined;
  const pulled = await pull(`${registry.host}/x:larger`, {
    store: temporaryDirectory(t),
    connections: 3,
    onEvent: (event) => {
      if (event.event === 'progress' && event.receivedBytes > 1e6) closed ??= mirror.close();
    },
  });
  assertProven(pulled.result);
  assert.ok(closed !== undefined);
  assert.equal(pulled.result.misses, 0);
  // Received from both together: exactly what was planned, and from the registry all that it was asked for.
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
  const fromRegistry = layerAsks(registry);
  assert.ok(fromRegistry.length > 0 && fromRegistry.every(({ path }) => path.endsWith(digest)));
  assert.ok(askedBytes(fromRegistry) < pulled.result.fetchedBytes - 1e6);
  assert.equal(
    registry.requests.filter(({ path }) => path.includes('/manifests/')).length,
    0,
    'the manifest was there already',
  );
});

test('mirrors that are dead, lack the image, refuse it or answer wrongly are skipped without a miss', async (t) => {
  const registry = await startSandbox(t);
  const statuses = [404, 401, 403, 500].map((status) => [{ match: {}, action: { status } }]);
  const faults = [...statuses, [{ match: {}, action: { closeAfterBytes: 0 } }]];
  const mirrors = await Promise.all(faults.map((rules) => startSandbox(t, { faults: rules })));
  useRegistriesConf(t, registryTable(registry.host, [await deadHost(), ...mirrors.map(({ host }) => host)]));
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.misses, 0);
  for (const mirror of mirrors) {
    assert.ok(mirror.requests.length >= 1);
    assert.ok(
      mirror.requests.every(({ path }) => !path.includes('/blobs/')),
      'not asked for blobs of an image it does not have',
    );
  }
});

test('blobs that a mirror lacks come from the registry, which requires its own token', async (t) => {
  const { mirror, registry } = await mirrored(t, {
    mirror: { requireToken: {}, faults: [{ match: { path: '/blobs/' }, action: { status: 404 } }] },
    registry: { requireToken: {} },
  });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.misses, 0);
  for (const { requests } of [mirror, registry]) {
    assert.equal(requests.filter(({ path }) => path === '/token').length, 1);
  }
});

for (const [what, flipByteAt] of [
  ['content', 1000],
  ['metadata', 365_000],
] as const) {
  test(`${what} that is damaged at a mirror comes from the registry`, async (t) => {
    const { mirror, registry } = await mirrored(t, {
      mirror: { faults: [{ match: { path: LAYER_DIGEST }, action: { flipByteAt } }] },
    });
    const options = { store: temporaryDirectory(t), workers: 4 };
    const pulled = await pull(`${registry.host}/x:chunked-v1`, options);
    assertProven(pulled.result);
    assert.ok(layerAsks(mirror).some(({ path }) => path.endsWith(LAYER_DIGEST)));
    assert.ok(layerAsks(registry).length > 0);
    assert.ok(layerAsks(registry).every(({ path }) => path.endsWith(LAYER_DIGEST)));
  });
}

test('content that is damaged at one mirror after the other comes from the registry', async (t) => {
  const damaged = { faults: [{ match: { path: LAYER_DIGEST }, action: { flipByteAt: 1000 } }] } as const;
  const mirrors = [await startSandbox(t, damaged), await startSandbox(t, damaged)];
  const registry = await startSandbox(t);
  const hosts = mirrors.map(({ host }) => host);
  useRegistriesConf(t, registryTable(registry.host, hosts));
  const { result, events } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.doesNotMatch(warnings(events).join(), /full layer/);
  for (const { requests } of mirrors) assert.ok(requests.some(({ path }) => path.endsWith(LAYER_DIGEST)));
});

test('an opaque layer that is damaged at mirrors comes from the registry', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ content: noise(1, 3_000_000) });
  const blob = gzipSync(tar);
  const digest = addBlob(layout, blob);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  nameImage(layout, 'it', [{ mediaType, digest, size: blob.length }], [digestOf(tar)]);
  const faults = [{ match: { path: digest }, action: { flipByteAt: 100_000 } }];
  const mirrors = [await startSandbox(t, { layout, faults }), await startSandbox(t, { layout, faults })];
  const registry = await startSandbox(t, { layout });
  const hosts = mirrors.map(({ host }) => host);
  useRegistriesConf(t, registryTable(registry.host, hosts));
  const { result } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  for (const each of [...mirrors, registry]) assert.ok(layerAsks(each).length > 0);
});

test('a copy fetches from the registry what is damaged at one mirror after the other', async (t) => {
  const faults = [{ match: { path: LAYER_DIGEST }, action: { flipByteAt: 1000 } }];
  const mirrors = [await startSandbox(t, { faults }), await startSandbox(t, { faults })];
  const registry = await startSandbox(t);
  const hosts = mirrors.map(({ host }) => host);
  useRegistriesConf(t, registryTable(registry.host, hosts));
  const path = join(temporaryDirectory(t), 'layout');
  await copyImage(`${registry.host}/x:chunked-v1`, { destination: { kind: 'layout', path } });
  assert.deepEqual(readBlob(path, LAYER_DIGEST), readBlob(FIXTURE_LAYOUT, LAYER_DIGEST));
  for (const each of [...mirrors, registry]) assert.ok(layerAsks(each).length > 0);
});

test('a manifest that is damaged at a mirror comes from the registry', async (t) => {
  const digest = MANIFEST_DIGEST;
  const { mirror, registry } = await mirrored(t, {
    mirror: { faults: [{ match: { path: '/manifests/' }, action: { flipByteAt: 10 } }] },
  });
  const { result } = await pull(`${registry.host}/x@${digest}`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(mirror.requests.filter(({ path }) => path.endsWith(digest)).length, 2);
});

test('a mirror that asks to wait is not waited for while the registry can serve the request', async (t) => {
  const wait = { retryAfter: { status: 429, seconds: 100 } } as const;
  for (const path of ['/manifests/', LAYER_DIGEST]) {
    const { mirror, registry } = await mirrored(t, {
      mirror: { faults: [{ match: { path }, action: wait }] },
    });
    const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.ok(mirror.requests.some(({ status }) => status === 429));
    assert.equal(result.misses, 0);
  }
});

test('a dead registry behind dead mirrors is hopeless at once, and its own failure is reported', async (t) => {
  const [mirror, registry] = [await deadHost(), await deadHost()];
  useRegistriesConf(t, registryTable(registry, [mirror]));
  const error = await failureOf(pull(`${registry}/x:y`, { store: temporaryDirectory(t) }));
  assert.equal(error.code, 'network-hopeless');
  assert.ok(error.message.includes(registry), error.message);
});

test('an insecure location is requested over http when it has no https', async (t) => {
  const registry = await startSandbox(t);
  const host = `0.0.0.0:${registry.host.split(':')[1]}`; // this machine, but no loopback address by name
  useRegistriesConf(t, '');
  const store = temporaryDirectory(t);
  assert.equal((await failureOf(pull(`${host}/x:chunked-v1`, { store }))).code, 'network-hopeless');
  useRegistriesConf(t, registryTable(host, [], 'insecure = true'));
  assertProven((await pull(`${host}/x:chunked-v1`, { store })).result);
});

test('a resumed pull of a digest finds out again that an insecure location has http alone', async (t) => {
  const registry = await startSandbox(t);
  const host = `0.0.0.0:${registry.host.split(':')[1]}`;
  useRegistriesConf(t, registryTable(host, [], 'insecure = true'));
  const store = temporaryDirectory(t);
  const image = `${host}/x@${MANIFEST_DIGEST}`;
  // Manifest and config are in the store then, and the layer is not.
  await inspectImage(image, { store });
  assertProven((await pull(image, { store })).result);
});

test('aliases and the one registry to search decide what a short name means, and blocked registries get no request', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  useRegistriesConf(t, `[aliases]\nit = "${registry.host}/any/name"`);
  assert.equal((await pull('it:chunked-v1', { store })).result.image, `${registry.host}/any/name:chunked-v1`);
  useRegistriesConf(t, `unqualified-search-registries = ["${registry.host}"]`);
  assert.equal((await pull('a/b:chunked-v1', { store })).result.image, `${registry.host}/a/b:chunked-v1`);
  const asked = registry.requests.length;
  useRegistriesConf(t, registryTable(registry.host, [], 'blocked = true'));
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store }));
  assert.deepEqual([error.code, error.exitCode], ['registry-blocked', 4]);
  assert.equal(registry.requests.length, asked);
});

test('docker-registry as a pull-through cache is a mirror', {
  skip: skipUnless('docker-registry'),
}, async (t) => {
  const registry = await startSandbox(t);
  const cache = await startDockerRegistry({ config: { proxy: { remoteurl: registry.origin } } });
  t.after(() => cache.stop());
  useRegistriesConf(t, registryTable(registry.host, [cache.host]));
  const pulled = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 0);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
  // The cache asks for whole blobs; a range at the registry would be ours.
  assert.deepEqual(layerAsks(registry), []);
});
