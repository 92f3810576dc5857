import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { RegistryOptions, SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { registryTable, useRegistriesConf } from '../support/environment.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { addBlob, emptyLayout, nameImage, noise, tarOf } from '../support/layout.js';
import { assertProven, failureOf, layerAsks, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { answerRange, startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const OWN = { username: 'own', password: 'of the registry' };
const THEIRS = { username: 'theirs', password: 'of the mirror' };

type User = typeof OWN;
type Faults = Pick<RegistryOptions, 'faults'>;

function tokensFor({ username, password }: User): Pick<RegistryOptions, 'requireToken'> {
  return { requireToken: { credentials: `${username}:${password}` } };
}

/** A registry and its mirror, each with users of its own. */
async function guarded(t: TestContext, mirrorFaults: Faults = {}, mirrorUser = THEIRS) {
  const mirror = await startSandbox(t, { ...tokensFor(mirrorUser), ...mirrorFaults });
  const registry = await startSandbox(t, tokensFor(OWN));
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const directory = temporaryDirectory(t);
  return { mirror, registry, image: `${registry.host}/x:chunked-v1`, directory };
}

function logIn(directory: string, logins: ReadonlyArray<readonly [host: string, user: User]>): string {
  const authfile = join(directory, 'auth.json');
  const auths = logins.map(([host, { username, password }]) => [host, { username, password }]);
  writeFileSync(authfile, JSON.stringify({ auths: Object.fromEntries(auths) }));
  return authfile;
}

function tokenAsks({ requests }: SandboxRegistry): number[] {
  return requests.filter(({ path }) => path === '/token').map(({ status }) => status);
}

test('mirror and registry each get the credentials that the file has for their host', async (t) => {
  const lacking = { faults: [{ match: { path: '/blobs/' }, action: { status: 404 } }] } as const;
  const { mirror, registry, image, directory } = await guarded(t, lacking);
  const authfile = logIn(directory, [
    [mirror.host, THEIRS],
    [registry.host, OWN],
  ]);
  const { result } = await pull(image, { store: join(directory, 'store'), authfile, workers: 2 });
  assertProven(result);
  assert.equal(result.misses, 0);
  assert.deepEqual([tokenAsks(mirror), tokenAsks(registry)], [[200], [200]]);
  assert.ok(layerAsks(registry).length > 0);
});

test('credentials of the command line are for the registry and for none of its mirrors', async (t) => {
  // The mirror would let them in.
  const { mirror, registry, image, directory } = await guarded(t, {}, OWN);
  const options = { store: join(directory, 'store'), authfile: logIn(directory, []), credentials: OWN };
  assertProven((await pull(image, options)).result);
  assert.deepEqual([tokenAsks(mirror), tokenAsks(registry)], [[401], [200]]);
  assert.ok(layerAsks(registry).length > 0 && layerAsks(mirror).length === 0);
  const stranger = { store: join(directory, 'other'), authfile: logIn(directory, []) };
  const error = await failureOf(pull(image, stranger));
  assert.deepEqual([error.code, error.exitCode], ['unauthorized', 4]);
  assert.ok(error.message.includes(registry.host), error.message);
});

test('a token that a mirror refuses during a pull is renewed there, without a request to the registry', async (t) => {
  const match = { path: LAYER_DIGEST, range: 'any', nth: [2, 3] as const };
  const challenged = { faults: [{ match, action: { challenge: { always: true } } }] } as const;
  const { mirror, registry, image, directory } = await guarded(t, challenged);
  const authfile = logIn(directory, [[mirror.host, THEIRS]]);
  const { result } = await pull(image, { store: join(directory, 'store'), authfile, workers: 2 });
  assertProven(result);
  assert.equal(result.misses, 0);
  const tokens = tokenAsks(mirror);
  assert.ok(tokens.length >= 2 && tokens.length <= 3, `${tokens.length} tokens`);
  assert.equal(registry.requests.length, 0);
});

test('a failure of the mirror is a miss like any other where the registry grants no token', async (t) => {
  const match = { path: LAYER_DIGEST, range: 'any', nth: 1 } as const;
  const { mirror, registry, image, directory } = await guarded(t, {
    faults: [{ match, action: { closeAfterBytes: 0 } }],
  });
  const authfile = logIn(directory, [[mirror.host, THEIRS]]);
  const { result } = await pull(image, { store: join(directory, 'store'), authfile });
  assertProven(result);
  assert.equal(result.misses, 1);
  assert.deepEqual([tokenAsks(registry), layerAsks(registry)], [[401], []]);
});

test('a tag that was pulled before is looked up at the mirror by HEAD, and at the registry if the mirror states no digest', async (t) => {
  const silent = { match: { path: '/manifests/', method: 'HEAD' }, action: { status: 405 } } as const;
  for (const faults of [[], [silent]]) {
    const { mirror, registry, image, directory } = await guarded(t, { faults });
    const authfile = logIn(directory, [
      [mirror.host, THEIRS],
      [registry.host, OWN],
    ]);
    const options = { store: join(directory, 'store'), authfile };
    await pull(image, options);
    const before = [mirror, registry].map(({ requests }) => requests.length);
    const again = await pull(image, options);
    assert.equal(again.result.requests, 0);
    const [atMirror = [], atRegistry = []] = [mirror, registry].map(({ requests }, i) =>
      requests.slice(before[i]).filter(({ path }) => path.includes('/manifests/')),
    );
    assert.ok(atMirror.length > 0 && atMirror.every(({ method }) => method === 'HEAD'));
    assert.equal(atRegistry.length > 0, faults.length > 0);
    assert.ok(atRegistry.every(({ method }) => method === 'HEAD'));
  }
});

test('a foreign layer is requested at its own URL alone, without credentials, whatever mirrors there are', async (t) => {
  const tar = tarOf({ theirs: noise(1, 100_000) });
  const blob = gzipSync(tar);
  const elsewhere = await startServer((request, response) => answerRange(request, response, blob));
  t.after(() => elsewhere.close());
  const layout = emptyLayout(t);
  const own = tarOf({ ours: noise(2, 5000) });
  const ownBlob = gzipSync(own);
  const layers = [
    {
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: addBlob(layout, ownBlob),
      size: ownBlob.length,
    },
    {
      mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      digest: addBlob(layout, blob),
      size: blob.length,
      urls: [`${elsewhere.origin}/theirs`],
    },
  ];
  nameImage(layout, 'it', layers, [own, tar].map(digestOf));
  const mirror = await startSandbox(t, { layout, ...tokensFor(THEIRS) });
  const registry = await startSandbox(t, { layout, ...tokensFor(OWN) });
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const directory = temporaryDirectory(t);
  const authfile = logIn(directory, [
    [mirror.host, THEIRS],
    [registry.host, OWN],
    [elsewhere.host, OWN],
  ]);
  const store = join(directory, 'store');
  const { result } = await pull(`${registry.host}/x:it`, { store, authfile, allowForeign: true });
  assertProven(result);
  assert.ok(elsewhere.requests.length > 0);
  for (const { url, authorization } of elsewhere.requests)
    assert.deepEqual([url, authorization], ['/theirs', undefined]);
  const foreign = layers[1]!.digest;
  for (const { requests } of [mirror, registry])
    assert.ok(!requests.some(({ path }) => path.includes(foreign)));
});
