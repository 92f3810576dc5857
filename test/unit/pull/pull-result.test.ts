import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Digest, parseDigest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import { layerKind } from '../../../src/format/layer-format.js';
import type { ImageLayer, KnownLayer } from '../../../src/pull/layer.js';
import { inspectionOf, type PreparedLayers } from '../../../src/pull/pull-result.js';
import type { ResolvedImage } from '../../../src/pull/resolve-image.js';
import { fakeLayer } from '../../support/fake-context.js';

const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const FIGURES = {
  tarBytes: 9000,
  metadataBytes: 92,
  fetchBytes: 500,
  reuseBytes: 300,
  resumedBytes: 20,
  requests: 3,
  diskBytes: 8000,
};

function digestOf(name: number): Digest {
  return parseDigest(`sha256:${String(name).padStart(64, '0')}`, 'digest');
}

function layerOf(
  name: number,
  more: { mediaType?: string; cachedTarBytes?: number; kind?: object } = {},
): ImageLayer {
  const { mediaType = GZIP, cachedTarBytes } = more;
  const descriptor = { mediaType, digest: digestOf(name), sizeBytes: 1000 + name };
  return {
    descriptor,
    diffId: digestOf(name + 100),
    kind: { ...layerKind(descriptor), ...more.kind },
    cachedTarBytes,
  };
}

/** What was learnt of a layer: with metadata when it is chunked. */
function known(layer: ImageLayer, more: Partial<KnownLayer> = {}): KnownLayer {
  const { metadata: _, ...rest } = fakeLayer();
  return { ...rest, diffId: layer.diffId, format: layer.kind.format, ...more };
}

function inspect(
  layers: readonly ImageLayer[],
  prepared: PreparedLayers,
  more: { platforms?: ResolvedImage['platforms']; config?: string } = {},
) {
  const { config = '{}', platforms } = more;
  const configBytes = Buffer.from(config);
  const manifest = { mediaType: MANIFEST };
  const own = { manifestDigest: digestOf(500), platform: 'linux/amd64', ...(platforms && { platforms }) };
  const resolved = { ...own, manifest, configBytes } as unknown as ResolvedImage;
  return inspectionOf('host/image:tag', { root: '/store' }, resolved, layers, prepared);
}

test('an inspection has the names of the image first, and its config unchanged', () => {
  const platforms = [{ platform: 'linux/arm64', digest: digestOf(7) }];
  const config = '{"architecture":"amd64","x":[1]}';
  const inspection = inspect([], { layers: [], figures: [] }, { platforms, config });
  const { store, ...rest } = inspection;
  assert.deepEqual(rest, {
    image: 'host/image:tag',
    digest: digestOf(500),
    mediaType: MANIFEST,
    platform: 'linux/amd64',
    platforms,
    config: { architecture: 'amd64', x: [1] },
    layers: [],
    fetchBytes: 0,
    reuseBytes: 0,
    resumedBytes: 0,
    requests: 0,
  });
  assert.ok(store.length > 0);
});

test('without an index there are no platforms', () => {
  const inspection = inspect([], { layers: [], figures: [] });
  assert.equal('platforms' in inspection, false);
});

test('a missing layer has the figures of its plan, except for the disk', () => {
  const layer = layerOf(1);
  const inspection = inspect([layer], { layers: [known(layer)], figures: [FIGURES] });
  const { diskBytes: _, ...figures } = FIGURES;
  assert.deepEqual(inspection.layers, [
    {
      digest: digestOf(1),
      diffId: digestOf(101),
      mediaType: GZIP,
      format: 'gzip',
      reason: `media type ${GZIP}`,
      sizeBytes: 1001,
      held: false,
      ...figures,
    },
  ]);
});

test('a layer that the store has is reused completely', () => {
  const inspection = inspect([layerOf(1, { cachedTarBytes: 700 })], { layers: [], figures: [] });
  const [layer] = inspection.layers;
  assert.deepEqual([layer?.held, layer?.tarBytes, layer?.reuseBytes], [true, 700, 700]);
  assert.deepEqual([layer?.fetchBytes, layer?.requests, inspection.reuseBytes], [0, 0, 700]);
});

test('a layer that the image has twice is fetched once', () => {
  const layer = layerOf(1);
  const inspection = inspect([layer, layer], { layers: [known(layer)], figures: [FIGURES] });
  assert.deepEqual(
    inspection.layers.map(({ fetchBytes, held, tarBytes }) => [fetchBytes, held, tarBytes]),
    [
      [500, false, 9000],
      [0, false, null],
    ],
  );
});

test('totals are the sums over the layers', () => {
  const layers = [layerOf(1), layerOf(2, { cachedTarBytes: 70 }), layerOf(3)];
  const figures = [
    FIGURES,
    { ...FIGURES, tarBytes: null, fetchBytes: 1, reuseBytes: 2, resumedBytes: 3, requests: 4 },
  ];
  const wanted = [known(layers[0]!), known(layers[2]!)];
  const { fetchBytes, reuseBytes, resumedBytes, requests, ...rest } = inspect(layers, {
    layers: wanted,
    figures,
  });
  assert.deepEqual([fetchBytes, reuseBytes, resumedBytes, requests], [501, 372, 23, 7]);
  assert.equal(rest.layers[2]?.tarBytes, null);
});

test('the reason of a format combines what blob and descriptor state', () => {
  const footer = { location: { by: 'footer', compression: 'zstd' } };
  const layers = [
    layerOf(1, { mediaType: ZSTD, kind: footer }),
    layerOf(2, { mediaType: ZSTD, kind: footer }),
    layerOf(3, { mediaType: ZSTD, kind: { problem: 'the annotations are bad' } }),
    layerOf(4, { mediaType: ZSTD, kind: footer }),
  ];
  const { metadata } = fakeLayer();
  const chunked = {
    format: 'zstd:chunked',
    metadata: { ...metadata, table: { ...metadata.table, entries: 12 } },
  } as const;
  const failed = { failedBefore: new PullError('metadata-malformed', 'the TOC is bad') };
  const more = [chunked, {}, {}, failed];
  const wanted = layers.map((layer, i) => known(layer, more[i]!));
  const inspection = inspect(layers, { layers: wanted, figures: more.map(() => FIGURES) });
  assert.deepEqual(
    inspection.layers.map(({ format, reason, entries }) => [format, reason, entries]),
    [
      ['zstd:chunked', `media type ${ZSTD}, footer`, 12],
      ['zstd', `media type ${ZSTD}, no footer`, undefined],
      ['zstd', `media type ${ZSTD}; the annotations are bad`, undefined],
      ['zstd', `media type ${ZSTD}; the TOC is bad`, undefined],
    ],
  );
});
