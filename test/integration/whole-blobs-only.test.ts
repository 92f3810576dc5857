import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type CopyOptions, copyImage } from '../../src/api/copy.js';
import { inspectImage } from '../../src/api/pull.js';
import type { FaultAction } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { largerImage } from '../support/file-fixtures.js';
import {
  addBlob,
  addLayer,
  changeImage,
  emptyLayout,
  nameDocument,
  nameImage,
  noise,
  readBlob,
  readManifest,
  type Suffix,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { assertProven, failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Answering, answerRange, startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';

/** How a registry gives no ranges. */
const WAYS: Readonly<Record<string, FaultAction>> = {
  'ignores ranges': { ignoreRange: true },
  'refuses ranges': { status: 416 },
};

interface Image {
  readonly layout: string;
  readonly ref: string;
}

/** An image `plain` of layers of `sizesMiB` that cannot be made smaller. */
async function plainImage(t: TestContext, suffix: Suffix, ...sizesMiB: number[]): Promise<Image> {
  const layout = emptyLayout(t);
  const tars = sizesMiB.map((size, i) => tarOf({ [`file${i}`]: noise(i + 1, size * 2 ** 20) }));
  const layers = await Promise.all(tars.map((tar) => addLayer(layout, tar, suffix)));
  const diffIds = tars.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`);
  nameImage(layout, 'plain', layers, diffIds);
  return { layout, ref: 'plain' };
}

const IMAGES: Readonly<Record<string, (t: TestContext) => Promise<Image>>> = {
  gzip: (t) => plainImage(t, '+gzip', 4, 1, 2),
  zstd: (t) => plainImage(t, '+zstd', 3),
  tar: (t) => plainImage(t, '', 1, 1),
  'zstd:chunked': async () => ({ ...(await largerImage(8)), ref: 'larger' }),
  eStargz: async (t) => {
    const layout = emptyLayout(t);
    await writeTars(
      t,
      layout,
      'it',
      [tarOf({ file: noise(1, 2 ** 20), other: noise(2, 2 ** 20) })],
      'estargz',
    );
    return { layout, ref: 'it' };
  },
};

/** A registry that gives no ranges of blobs in one of the ways, from the n-th that is asked for. */
function startWithout(t: TestContext, { layout }: Image, action: FaultAction, nth = 1) {
  const match = { path: '/blobs/', range: 'any', nth: [nth, 1e9] as const };
  return startSandbox(t, { layout, faults: [{ match, action }] });
}

/** Fails unless the registry has sent each layer once and no more than a tenth besides. */
function assertSentOnce({ requests }: SandboxRegistry, { layout, ref }: Image): void {
  for (const { digest, size } of readManifest(layout, ref).layers) {
    const asked = requests.filter(({ path }) => path.endsWith(digest));
    const sentBytes = asked.reduce((sum, request) => sum + request.sentBytes, 0);
    assert.ok(sentBytes <= 1.1 * size, `${sentBytes} of ${size} bytes of ${digest}`);
    assert.equal(asked.filter(({ status }) => status === 200).length, 1, digest);
  }
}

/** Copies an image into a layout, and compares its layers with the original. */
async function copied(
  { layout, ref }: Image,
  host: string,
  path: string,
  options: Partial<CopyOptions> = {},
) {
  const destination = { kind: 'layout', path } as const;
  const result = await copyImage(`${host}/x:${ref}`, { destination, ...options });
  for (const { digest } of readManifest(layout, ref).layers)
    assert.ok(readBlob(path, digest).equals(readBlob(layout, digest)));
  return result;
}

for (const [what, action] of Object.entries(WAYS)) {
  for (const [kind, make] of Object.entries(IMAGES)) {
    // What asks without a range is the same for all kinds.
    if ('status' in action && kind !== 'gzip' && kind !== 'zstd:chunked') continue;
    test(`a registry that ${what} sends each layer of ${kind} once, to a pull and to a copy`, async (t) => {
      const image = await make(t);
      const registry = await startWithout(t, image, action);
      const { result, events } = await pull(`${registry.host}/x:${image.ref}`, {
        store: temporaryDirectory(t),
        connections: 16,
        workers: 2,
      });
      assertProven(result);
      assert.equal(result.misses, 0);
      assertSentOnce(registry, image);
      const isChunked = kind === 'zstd:chunked' || kind === 'eStargz';
      if (isChunked)
        assert.match(String(warnings(events)), /sends full blobs only.*pulling the full layer instead/);
      const other = await startWithout(t, image, action);
      const copy = await copied(image, other.host, join(temporaryDirectory(t), 'copy'));
      assert.equal(copy.misses, 0);
      assertSentOnce(other, image);
      assert.equal(copy.requests, other.requests.filter(({ path }) => path.includes('/blobs/')).length);
    });
  }
}

test('a copy of all platforms from a registry that ignores ranges fetches each blob once', async (t) => {
  const image = await plainImage(t, '+gzip', 1, 2);
  const platforms = ['amd64', 'arm64'].map((architecture, i) => {
    changeImage(image.layout, 'plain', (manifest, config) => {
      config.architecture = architecture;
      if (i === 0) return;
      manifest.layers.splice(1);
      config.rootfs.diff_ids.splice(1);
    });
    const manifest = readManifest(image.layout, 'plain');
    const bytes = Buffer.from(JSON.stringify(manifest));
    const digest = addBlob(image.layout, bytes);
    return {
      mediaType: manifest.mediaType!,
      digest,
      size: bytes.length,
      platform: { os: 'linux', architecture },
    };
  });
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  nameDocument(image.layout, 'all', mediaType, { schemaVersion: 2, mediaType, manifests: platforms });
  const registry = await startWithout(t, image, { ignoreRange: true });
  const destination = { kind: 'archive', path: join(temporaryDirectory(t), 'copy.tar') } as const;
  await copyImage(`${registry.host}/x:all`, { destination, allPlatforms: true });
  assertSentOnce(registry, image);
});

test('later blobs of a registry that ignores ranges are requested in full at once', async (t) => {
  const image = await plainImage(t, '+gzip', 1, 1, 1, 1);
  const registry = await startWithout(t, image, { ignoreRange: true });
  const options = { store: temporaryDirectory(t), connections: 2, workers: 2 };
  const { result } = await pull(`${registry.host}/x:plain`, options);
  assertProven(result);
  for (const { digest } of readManifest(image.layout, 'plain').layers.slice(1))
    assert.equal(registry.requests.filter(({ path }) => path.endsWith(digest)).length, 1);
});

for (const [kind, nth] of [
  ['zstd:chunked', 2],
  ['gzip', 3],
] as const) {
  test(`the first full response for a layer of ${kind} is used when ranges begin to be ignored later`, async (t) => {
    const image = await IMAGES[kind]!(t);
    const registry = await startWithout(t, image, { ignoreRange: true }, nth);
    const options = { store: temporaryDirectory(t), connections: 4, workers: 2 };
    const { result } = await pull(`${registry.host}/x:${image.ref}`, options);
    assertProven(result);
    const sizeBytes = result.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    // What came in ranges before comes again; no whole response is read but one of each layer.
    const inRanges = registry.requests.filter(
      ({ path, status }) => path.includes('/blobs/') && status === 206,
    );
    const rangeBytes = inRanges.reduce((sum, { sentBytes }) => sum + sentBytes, 0);
    assert.ok(result.fetchedBytes <= sizeBytes + rangeBytes, `${result.fetchedBytes} of ${sizeBytes} bytes`);
    assert.ok(result.resumedBytes === 0, `${result.resumedBytes} bytes resumed`);
  });
}

test('an interrupted pull and copy fetch each blob once when ranges are ignored by now', async (t) => {
  const image = await plainImage(t, '+gzip', 3);
  const [layer] = readManifest(image.layout, 'plain').layers;
  const path = layer!.digest;
  const breaking = () =>
    startSandbox(t, {
      layout: image.layout,
      faults: [
        { match: { path, nth: 1 }, action: { closeAfterBytes: 500_000 } },
        { match: { path, nth: [2, 1e9] }, action: { status: 404 } },
      ],
    });
  const half = await breaking();
  const registry = await startWithout(t, image, { ignoreRange: true });
  const store = temporaryDirectory(t);
  await failureOf(pull(`${half.host}/x:plain`, { store, connections: 1 }));
  assertProven((await pull(`${registry.host}/x:plain`, { store })).result);
  assertSentOnce(registry, image);
  const other = await startWithout(t, image, { ignoreRange: true });
  const directory = join(temporaryDirectory(t), 'copy');
  const again = await breaking();
  await failureOf(copied(image, again.host, directory, { connections: 1 }));
  const { resumedBytes } = await copied(image, other.host, directory);
  assert.ok(resumedBytes > 0);
  assertSentOnce(other, image);
});

test('foreign blobs of a host that ignores ranges come once each, and the second is requested in full', async (t) => {
  const image = await plainImage(t, '+gzip', 2, 1);
  const blobs = readManifest(image.layout, 'plain').layers.map(({ digest }) =>
    readBlob(image.layout, digest),
  );
  const elsewhere = await startServer((request, response) =>
    response.end(blobs[Number(request.url!.slice(1))]),
  );
  t.after(() => elsewhere.close());
  changeImage(image.layout, 'plain', ({ layers }) => {
    for (const [i, layer] of layers.entries()) {
      layer.mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
      layer.urls = [`${elsewhere.origin}/${i}`];
    }
  });
  const registry = await startSandbox(t, { layout: image.layout });
  const options = { store: temporaryDirectory(t), allowForeign: true, connections: 1, workers: 1 };
  assertProven((await pull(`${registry.host}/x:plain`, options)).result);
  assert.deepEqual(
    elsewhere.requests.map(({ url, range }) => [url, range]),
    [
      ['/0', elsewhere.requests[0]!.range],
      ['/1', `bytes=0-${blobs[1]!.length - 1}`],
    ],
  );
});

test('a full blob that arrives over ranges that were hashed is hashed again', async (t) => {
  const image = await plainImage(t, '+gzip', 3);
  const [layer] = readManifest(image.layout, 'plain').layers;
  const good = readBlob(image.layout, layer!.digest);
  const bad = Buffer.from(good);
  bad[1000]! ^= 0xff;
  const answer: Answering = (request, response, nth) => {
    if (nth === 1) answerRange(request, response, good);
    // By then what came first is hashed.
    else setTimeout(() => response.end(bad), 200);
  };
  const elsewhere = await startServer(answer);
  t.after(() => elsewhere.close());
  changeImage(image.layout, 'plain', ({ layers: [layer] }) => {
    layer!.mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
    layer!.urls = [elsewhere.origin];
  });
  const registry = await startSandbox(t, { layout: image.layout });
  const path = join(temporaryDirectory(t), 'copy');
  const copying = copied(image, registry.host, path, { allowForeign: true, connections: 1 });
  assert.equal((await failureOf(copying)).code, 'digest-mismatch');
  // A range, the whole blob instead of the next, and that once more.
  assert.equal(elsewhere.requests.length, 3);
});

test('a plan counts one request for each layer of a registry that ignores ranges', async (t) => {
  const image = { ...(await largerImage(8)), ref: 'larger' };
  const registry = await startWithout(t, image, { ignoreRange: true });
  const { layers } = await inspectImage(`${registry.host}/x:larger`, { store: temporaryDirectory(t) });
  assert.deepEqual(
    layers.map(({ requests, fetchBytes, sizeBytes }) => [requests, fetchBytes === sizeBytes]),
    [[1, true]],
  );
});
