import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { type CopyOptions, copyImage } from '../../src/api/copy.js';
import type { PullEvent } from '../../src/api/pull.js';
import {
  addBlob,
  changeImage,
  emptyLayout,
  type ManifestJson,
  nameImage,
  noise,
  tarOf,
} from '../support/layout.js';
import { assertProven, failureOf, layerAsks, listedImages, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Answering, answerRange, type ScriptedServer, startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const TAR = tarOf({ theirs: noise(1, 2_000_000), text: Buffer.alloc(50_000, 'a line\n') });
const BLOB = gzipSync(TAR);
const OWN = tarOf({ ours: noise(2, 5000) });
const OWN_BLOB = gzipSync(OWN);

const OCI_FOREIGN = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
const DOCKER_FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';

/** A place that is no registry. */
async function place(t: TestContext, answer: Answering): Promise<ScriptedServer> {
  const server = await startServer(answer);
  t.after(() => server.close());
  return server;
}

const good: Answering = (request, response) => answerRange(request, response, BLOB);
const missing: Answering = (_, response) => response.writeHead(404).end();
const wrong: Answering = (request, response) =>
  answerRange(request, response, Buffer.concat([BLOB.subarray(0, -1), Buffer.from([1])]));

/** An image of a layer of its own and a foreign one at these addresses, behind a registry that wants tokens. */
async function foreignImage(t: TestContext, urls: readonly string[], mediaType = OCI_FOREIGN) {
  const layout = emptyLayout(t);
  const own = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: addBlob(layout, OWN_BLOB),
    size: OWN_BLOB.length,
  };
  const layer = { mediaType, digest: digestOf(BLOB), size: BLOB.length, urls: [...urls] };
  nameImage(layout, 'it', [own, layer], [OWN, TAR].map(digestOf));
  const registry = await startSandbox(t, { layout, requireToken: {} });
  return { layout, layer, registry, image: `${registry.host}/x:it`, store: temporaryDirectory(t) };
}

for (const mediaType of [OCI_FOREIGN, DOCKER_FOREIGN]) {
  test(`a layer of ${mediaType} is not fetched without --allow-foreign, which the hint names`, async (t) => {
    const elsewhere = await place(t, good);
    const { image, store, layer } = await foreignImage(t, [`${elsewhere.origin}/secret/path?k=v`], mediaType);
    const error = await failureOf(pull(image, { store }));
    assert.deepEqual([error.code, error.exitCode, error.layer], ['unsupported', 8, layer.digest]);
    assert.match(error.hint ?? '', /--allow-foreign/);
    assert.ok(error.message.includes(elsewhere.host) && !error.message.includes('secret'), error.message);
    assert.equal(elsewhere.requests.length, 0);
    assert.deepEqual(listedImages(store), []);
  });

  test(`with --allow-foreign a layer of ${mediaType} is fetched from its URL, without the registry's token`, async (t) => {
    const elsewhere = await place(t, good);
    const { image, store, layer, registry } = await foreignImage(
      t,
      [`${elsewhere.origin}/theirs`],
      mediaType,
    );
    const { result, events } = await pull(image, { store, allowForeign: true });
    assertProven(result);
    assert.deepEqual(warnings(events), []);
    assert.deepEqual([result.layers[1]!.format, result.layers[1]!.fetchedBytes], ['gzip', BLOB.length]);
    assert.ok(elsewhere.requests.length > 0);
    for (const { url, authorization } of elsewhere.requests)
      assert.deepEqual([url, authorization], ['/theirs', undefined]);
    const asks = layerAsks(registry);
    assert.ok(asks.length > 0 && !asks.some(({ path }) => path.endsWith(layer.digest)));
    // What is in the store needs no leave: it is not fetched from anywhere.
    const asked = elsewhere.requests.length;
    const again = await pull(image, { store });
    assert.deepEqual([again.result.requests, elsewhere.requests.length], [0, asked]);
  });
}

test('a foreign layer that is not at its first URL is fetched from the second', async (t) => {
  const [first, second] = [await place(t, missing), await place(t, good)];
  const { image, store } = await foreignImage(t, [`${first.origin}/a`, `${second.origin}/b`]);
  const { result, events } = await pull(image, { store, allowForeign: true });
  assertProven(result);
  assert.match(warnings(events).join(), /the next URL/);
  assert.ok(
    first.requests.length > 0 && second.requests.every(({ authorization }) => authorization === undefined),
  );
});

test('a foreign layer with wrong bytes is fetched from the second URL', async (t) => {
  const [first, second] = [await place(t, wrong), await place(t, good)];
  const { image, store } = await foreignImage(t, [`${first.origin}/a`, `${second.origin}/b`]);
  const { result } = await pull(image, { store, allowForeign: true });
  assertProven(result);
  assert.ok(first.requests.length > 0 && second.requests.length > 0);
});

test('a foreign layer with wrong bytes is refused where there is no other URL', async (t) => {
  const elsewhere = await place(t, wrong);
  const { image, store, layer } = await foreignImage(t, [`${elsewhere.origin}/a`]);
  const error = await failureOf(pull(image, { store, allowForeign: true }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['digest-mismatch', 6, layer.digest]);
  assert.deepEqual(listedImages(store), []);
});

test('a foreign layer that is at none of its URLs is not found', async (t) => {
  const elsewhere = await place(t, missing);
  const urls = ['/a', '/b'].map((path) => elsewhere.origin + path);
  const { image, store, layer } = await foreignImage(t, urls);
  const error = await failureOf(pull(image, { store, allowForeign: true }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['blob-not-found', 3, layer.digest]);
  assert.deepEqual([...new Set(elsewhere.requests.map(({ url }) => url))], ['/a', '/b']);
});

test('a URL that redirects to a host that asks for a token gets none', async (t) => {
  const asking = await place(t, (_, response) =>
    response.writeHead(401, { 'www-authenticate': 'Bearer realm="http://127.0.0.1:1/token"' }).end(),
  );
  const elsewhere = await place(t, (_, response) =>
    response.writeHead(307, { location: `${asking.origin}/b` }).end(),
  );
  const { image, store } = await foreignImage(t, [`${elsewhere.origin}/a`]);
  const error = await failureOf(pull(image, { store, allowForeign: true }));
  assert.deepEqual([error.code, error.exitCode], ['unauthorized', 4]);
  for (const { authorization } of [...elsewhere.requests, ...asking.requests])
    assert.equal(authorization, undefined);
});

test('a foreign layer without URLs is requested from the registry, as other tools push it', async (t) => {
  const { layout, image, store, registry } = await foreignImage(t, []);
  addBlob(layout, BLOB);
  changeImage(layout, 'it', ({ layers }: ManifestJson) => {
    delete layers[1]!.urls;
  });
  assertProven((await pull(image, { store })).result);
  assert.equal(layerAsks(registry).length > 0, true);
});

/** Copies the image into a layout; its blobs by name, and what it was warned of. */
async function copied(t: TestContext, image: string, options: Partial<CopyOptions> = {}) {
  const path = join(temporaryDirectory(t), 'copy');
  const events: PullEvent[] = [];
  const onEvent = (event: PullEvent) => events.push(event);
  const destination = { kind: 'layout', path } as const;
  const result = await copyImage(image, { destination, onEvent, ...options });
  return { result, blobs: readdirSync(join(path, 'blobs', 'sha256')), warned: warnings(events).join() };
}

test('a copy leaves out a foreign layer, and names its host', async (t) => {
  const elsewhere = await place(t, good);
  const { image, layer } = await foreignImage(t, [`${elsewhere.origin}/secret/path?k=v`]);
  const { blobs, warned } = await copied(t, image);
  assert.deepEqual([blobs.length, elsewhere.requests.length], [3, 0]);
  assert.ok(warned.includes(elsewhere.host) && !warned.includes('secret'), warned);
  assert.ok(!blobs.some((name) => layer.digest.endsWith(name)));
});

test('with --allow-foreign a copy has the foreign layer, from the first URL with the right bytes', async (t) => {
  const places = [await place(t, missing), await place(t, wrong), await place(t, good)];
  const { image, layer } = await foreignImage(
    t,
    places.map(({ origin }) => `${origin}/theirs`),
  );
  const { blobs, warned, result } = await copied(t, image, { allowForeign: true });
  assert.ok(blobs.includes(layer.digest.slice('sha256:'.length)), blobs.join());
  assert.match(warned, /the next URL.*fetching it again.*the next URL/);
  // The second address twice.
  assert.ok(result.fetchedBytes > 3 * BLOB.length, String(result.fetchedBytes));
  for (const { requests } of places) {
    assert.ok(requests.length > 0 && requests.every(({ authorization }) => authorization === undefined));
  }
});
