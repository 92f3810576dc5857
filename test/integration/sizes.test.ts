import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { inspectImage, type PullEvent } from '../../src/api/pull.js';
import { MAX_BLOB_BYTES } from '../../src/format/manifest.js';
import { nameManifest } from '../../src/sandbox/image-writer.js';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import {
  addBlob,
  addLayer,
  changeImage,
  type DescriptorJson,
  emptyLayout,
  nameImage,
  noise,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { assertProven, failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const TAR = tarOf({ a: noise(1, 300_000), b: noise(2, 5_000) });

/** A layout with an image `it` of one layer, gzip unless it is to be chunked. */
async function imageOf(t: TestContext, format: 'gzip' | 'chunked' = 'gzip'): Promise<string> {
  const layout = emptyLayout(t);
  if (format === 'chunked') await writeTars(t, layout, 'it', [TAR]);
  else nameImage(layout, 'it', [await addLayer(layout, TAR, '+gzip')], [digestOf(TAR)]);
  return layout;
}

/** Changes what the manifest says of the one layer. */
function changeLayer(layout: string, change: (layer: DescriptorJson) => void): void {
  changeImage(layout, 'it', ({ layers }) => change(layers[0]!));
}

/** Bytes of the same length under the layer's digest. */
function spoilLayer(layout: string): void {
  const { digest } = readManifest(layout, 'it').layers[0]!;
  writeFileSync(join(layout, 'blobs', digest.replace(':', '/')), noise(9, 300_000));
}

async function serve(t: TestContext, layout: string) {
  const registry = await startSandbox(t, { layout });
  const image = `${registry.host}/x:it`;
  const digest = readManifest(layout, 'it').layers[0]?.digest ?? '';
  return {
    image,
    /** GETs of the layer's blob. */
    asked: () => registry.requests.filter(({ path }) => path.includes(digest)).length,
  };
}

/** Threads take most of the time of these small pulls. */
const ONE = { workers: 1 } as const;

/** Pulls, or copies: the events by then, however it ends. */
const WAYS: ReadonlyArray<
  readonly [name: string, use: (t: TestContext, image: string, events: PullEvent[]) => Promise<unknown>]
> = [
  [
    'a pull',
    async (t, image, events) => {
      const { result } = await pull(image, {
        ...ONE,
        store: temporaryDirectory(t),
        onEvent: (e) => events.push(e),
      });
      assertProven(result);
    },
  ],
  [
    'a copy',
    (t, image, events) => {
      const destination = { kind: 'layout', path: join(temporaryDirectory(t), 'copy') } as const;
      return copyImage(image, { ...ONE, destination, onEvent: (event) => events.push(event) });
    },
  ],
];

const INTO_ARCHIVE: (typeof WAYS)[number] = [
  'a copy into an archive',
  (t, image, events) => {
    const destination = { kind: 'archive', path: join(temporaryDirectory(t), 'copy.tar') } as const;
    return copyImage(image, { ...ONE, destination, onEvent: (event) => events.push(event) });
  },
];

for (const [way, use] of [...WAYS, INTO_ARCHIVE]) {
  for (const format of ['gzip', 'chunked'] as const) {
    test(`${way} of a ${format} layer of size 0 asks the registry for its size`, async (t) => {
      const layout = await imageOf(t, format);
      changeLayer(layout, (layer) => {
        layer.size = 0;
      });
      const { image, asked } = await serve(t, layout);
      const events: PullEvent[] = [];
      await use(t, image, events);
      assert.deepEqual([warnings(events), asked()], [[], 2]);
    });
  }
}

for (const [way, use] of WAYS) {
  test(`${way} of a layer of size 0 whose bytes are others ends after two attempts and one warning`, async (t) => {
    const layout = await imageOf(t);
    changeLayer(layout, (layer) => {
      layer.size = 0;
    });
    spoilLayer(layout);
    const { image, asked } = await serve(t, layout);
    const events: PullEvent[] = [];
    const error = await failureOf(use(t, image, events));
    assert.deepEqual([error.code, error.exitCode], ['digest-mismatch', 6], error.message);
    assert.ok(error.hint !== undefined && error.layer !== undefined);
    assert.deepEqual([warnings(events).length, asked()], [1, 3]);
  });

  for (const [what, by] of [
    ['too small', -1],
    ['too large', 2 ** 30],
  ] as const) {
    test(`${way} of a layer whose size is ${what} ends`, async (t) => {
      const layout = await imageOf(t);
      changeLayer(layout, (layer) => {
        layer.size += by;
      });
      const { image, asked } = await serve(t, layout);
      const error = await failureOf(use(t, image, []));
      assert.equal(error.exitCode, 6, error.message);
      assert.ok(asked() <= 16, `${asked()} requests`);
    });
  }

  test(`${way} of a layer that is too long for its size, which the registry hides, ends after two attempts`, async (t) => {
    const layout = await imageOf(t);
    changeLayer(layout, (layer) => {
      layer.size -= 1;
    });
    const { digest, size } = readManifest(layout, 'it').layers[0]!;
    const action = { wrongContentRange: `bytes 0-${size - 1}/*` };
    const registry = await startSandbox(t, { layout, faults: [{ match: { path: digest }, action }] });
    const error = await failureOf(use(t, `${registry.host}/x:it`, []));
    assert.deepEqual([error.code, error.layer], ['digest-mismatch', digest], error.message);
    assert.equal(registry.requests.filter(({ path }) => path.includes(digest)).length, 2);
  });

  test(`${way} of a layer of size 0 that the registry says is empty ends`, async (t) => {
    const layout = await imageOf(t);
    changeLayer(layout, (layer) => {
      layer.size = 0;
    });
    const { digest } = readManifest(layout, 'it').layers[0]!;
    const action = { status: 200, body: '' };
    const { host } = await startSandbox(t, { layout, faults: [{ match: { path: digest }, action }] });
    const error = await failureOf(use(t, `${host}/x:it`, []));
    assert.deepEqual([error.code, error.layer], ['metadata-malformed', digest], error.message);
  });

  test(`${way} of a layer of size 0 that the registry says is larger than any blob ends before it`, async (t) => {
    const layout = await imageOf(t);
    changeLayer(layout, (layer) => {
      layer.size = 0;
    });
    const { digest } = readManifest(layout, 'it').layers[0]!;
    const headers = { 'content-range': `bytes 0-0/${2 ** 40}` };
    const action = { status: 206, headers, body: 'x' };
    const { host } = await startSandbox(t, { layout, faults: [{ match: { path: digest }, action }] });
    const error = await failureOf(use(t, `${host}/x:it`, []));
    assert.deepEqual([error.code, error.layer], ['metadata-malformed', digest], error.message);
    assert.match(error.message, /1099511627776 bytes; the limit for a blob is 549755813888/);
  });

  test(`${way} of a layer whose size nobody says ends`, async (t) => {
    const layout = await imageOf(t);
    changeLayer(layout, (layer) => {
      layer.size = 0;
    });
    const { digest } = readManifest(layout, 'it').layers[0]!;
    const action = { status: 206, headers: { 'content-range': 'bytes 0-0/*' }, body: 'x' };
    const { host } = await startSandbox(t, { layout, faults: [{ match: { path: digest }, action }] });
    const error = await failureOf(use(t, `${host}/x:it`, []));
    assert.deepEqual([error.code, error.layer], ['answer-unexpected', digest], error.message);
  });

  test(`${way} of a config of size 0 believes its digest`, async (t) => {
    const layout = await imageOf(t);
    const { config, ...manifest } = readManifest(layout, 'it');
    const text = JSON.stringify({ ...manifest, config: { ...config, size: 7 } }).replace(
      '"size":7',
      '"size":-0',
    );
    const mediaType = manifest.mediaType ?? '';
    const digest = addBlob(layout, Buffer.from(text));
    nameManifest(layout, 'it', { mediaType, digest, size: text.length } as Parameters<
      typeof nameManifest
    >[2]);
    const { image } = await serve(t, layout);
    await use(t, image, []);
  });

  test(`${way} of a layer of nothing asks for nothing`, async (t) => {
    const layout = emptyLayout(t);
    const nothing = await addLayer(layout, Buffer.alloc(0), '');
    nameImage(layout, 'it', [nothing], [nothing.digest]);
    const { image, asked } = await serve(t, layout);
    await use(t, image, []);
    assert.equal(asked(), 0);
  });
}

test('a foreign layer of size 0 is measured where it lies', async (t) => {
  const layout = await imageOf(t);
  const elsewhere = await startSandbox(t, { layout });
  changeImage(layout, 'it', ({ layers: [layer] }) => {
    layer!.size = 0;
    layer!.mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
    layer!.urls = [`http://${elsewhere.host}/v2/x/blobs/${layer!.digest}`];
  });
  const { image, asked } = await serve(t, layout);
  const { result } = await pull(image, { store: temporaryDirectory(t), allowForeign: true });
  assertProven(result);
  assert.equal(asked(), 0);
});

test('a plan says what a layer of size 0 will cost', async (t) => {
  const layout = await imageOf(t);
  const { size } = readManifest(layout, 'it').layers[0]!;
  changeLayer(layout, (layer) => {
    layer.size = 0;
  });
  const { image } = await serve(t, layout);
  const { fetchBytes, requests } = await inspectImage(image, { store: temporaryDirectory(t) });
  assert.deepEqual([fetchBytes, requests], [size, 1]);
});

/** Node with two support threads takes about 90 MB, whatever sizes are stated. */
const MAX_BYTES = 200e6;

for (const use of ['inspect', 'copy', undefined] as const) {
  test(`${use ?? 'pull'}: a stated size of ${MAX_BLOB_BYTES} bytes costs no memory`, async (t) => {
    const layout = emptyLayout(t);
    const layers = Array.from({ length: 999 }, (_, i) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: digestOf(`blob ${i}`),
      size: MAX_BLOB_BYTES,
    }));
    nameImage(
      layout,
      'it',
      layers,
      layers.map((_, i) => digestOf(`tar ${i}`)),
    );
    const { image } = await serve(t, layout);
    const options = { store: temporaryDirectory(t), workers: 2, platform: 'linux/amd64' };
    const child = startPullingChild(t, { image, options, ...(use && { use }) });
    assert.equal(await child.gone, 0);
    const codes = outcomesOf(child.lines).map((outcome) => ('code' in outcome ? outcome.code : 'done'));
    // A file system that does not say how much room it has lets it come to the first request.
    if (codes[0] !== 'blob-not-found') {
      assert.deepEqual(codes, use === 'inspect' ? [] : ['store-full']);
    }
    const bytes = maxRssBytesOf(child.lines);
    t.diagnostic(`${(bytes / 1e6).toFixed(0)} MB`);
    assert.ok(bytes < MAX_BYTES, `${bytes} bytes`);
  });
}
