import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Digest, parseDigest } from '../../../src/format/digest.js';
import { layerKind } from '../../../src/format/layer-format.js';
import type { Descriptor } from '../../../src/format/manifest.js';
import { type ImageLayer, imageLayers, wantedLayers } from '../../../src/pull/wanted.js';
import { storePaths } from '../../../src/store/paths.js';
import { temporaryDirectory } from '../../support/temporary.js';

const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';

function digestOf(name: number): Digest {
  return parseDigest(`sha256:${String(name).padStart(64, '0')}`, 'digest');
}

function layerOf(name: number, more: Partial<Descriptor> & { cachedTarBytes?: number } = {}): ImageLayer {
  const { cachedTarBytes, ...own } = more;
  const descriptor = { mediaType: GZIP, digest: digestOf(name), sizeBytes: 1000 + name, ...own };
  return { descriptor, diffId: digestOf(name + 100), kind: layerKind(descriptor), cachedTarBytes };
}

function want(layers: readonly ImageLayer[], allowForeign = false) {
  const warnings: string[] = [];
  const session = { blobUrl: (digest: string) => `https://registry/${digest}` };
  const warn = (message: string) => warnings.push(message);
  return { wanted: wantedLayers(layers, { session, allowForeign, warn }), warnings };
}

test('a layer is asked of the registry, as what its descriptor says', () => {
  const { wanted, warnings } = want([layerOf(1)]);
  assert.deepEqual(wanted, [
    {
      blob: { url: `https://registry/${digestOf(1)}`, digest: digestOf(1), sizeBytes: 1001 },
      diffId: digestOf(101),
      format: 'gzip',
      mediaType: GZIP,
      compression: 'gzip',
      otherUrls: [],
    },
  ]);
  assert.deepEqual(warnings, []);
});

test('what the store has is not wanted, nor is a DiffID twice, in whatever compression', () => {
  const twin = { ...layerOf(3), diffId: layerOf(2).diffId };
  const { wanted } = want([layerOf(1, { cachedTarBytes: 5000 }), layerOf(2), twin, layerOf(4)]);
  assert.deepEqual(
    wanted.map(({ blob }) => blob.digest),
    [digestOf(2), digestOf(4)],
  );
});

test('a layer of no bytes that the store has is not wanted either', () => {
  assert.deepEqual(want([layerOf(1, { cachedTarBytes: 0 })]).wanted, []);
});

test('where metadata may be goes with the layer', () => {
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': digestOf(9) };
  const [layer] = want([layerOf(1, { annotations })]).wanted;
  assert.equal(layer?.format, 'estargz');
  assert.deepEqual(layer?.place, { by: 'footer', compression: 'gzip', tocDigest: digestOf(9) });
});

test('annotations that make no sense are told of, and the layer is one stream', () => {
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': 'nonsense' };
  const { wanted, warnings } = want([layerOf(1, { annotations })]);
  assert.deepEqual([wanted[0]?.format, wanted[0]?.place], ['gzip', undefined]);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, new RegExp(`^layer ${digestOf(1)}: .*toc\\.digest.*; it is pulled as a whole$`));
});

test('a foreign layer is not pulled unless that is allowed, and the error names the host alone', () => {
  const urls = [
    'https://user:secret@cdn.example/path?token=secret',
    'https://cdn.example/2',
    'not an address',
  ];
  assert.throws(
    () => want([layerOf(1, { mediaType: FOREIGN, urls })]),
    (error: Error & Record<string, unknown>) => {
      assert.equal(error['code'], 'unsupported');
      assert.equal(error['layer'], digestOf(1));
      assert.match(error.message, /is not in the registry but at cdn\.example, no valid address$/);
      assert.match(String(error['hint']), /--allow-foreign/);
      assert.doesNotMatch(`${error.message} ${String(error['hint'])}`, /secret|path/);
      return true;
    },
  );
});

test('an allowed foreign layer is asked of its addresses in order, anonymously', () => {
  const urls = [
    'ftp://a.example/1',
    'HTTPS://b.example/2',
    'file:///etc/passwd',
    'http://',
    'http://c.example/3',
  ];
  const { wanted } = want([layerOf(1, { mediaType: FOREIGN, urls })], true);
  assert.deepEqual(wanted[0]?.blob, {
    url: 'HTTPS://b.example/2',
    digest: digestOf(1),
    sizeBytes: 1001,
    anonymous: true,
  });
  assert.deepEqual(wanted[0]?.otherUrls, ['http://c.example/3']);
});

test('a foreign layer with no address that could be asked is unsupported, allowed or not', () => {
  const layer = layerOf(1, { mediaType: FOREIGN, urls: ['ftp://a.example/1', 'nothing'] });
  assert.throws(() => want([layer], true), {
    code: 'unsupported',
    message: /lies at no http or https address$/,
  });
  assert.throws(() => want([layer], false), { code: 'unsupported' });
});

test('a foreign layer that names no address is in the registry like others', () => {
  for (const urls of [undefined, []]) {
    const more = urls === undefined ? {} : { urls };
    const { wanted } = want([layerOf(1, { mediaType: FOREIGN, ...more })]);
    assert.equal(wanted[0]?.blob.url, `https://registry/${digestOf(1)}`);
    assert.equal(wanted[0]?.blob.anonymous, undefined);
  }
});

test('a foreign layer that the store has needs no permission', () => {
  const layer = layerOf(1, { mediaType: FOREIGN, urls: ['https://a.example/1'], cachedTarBytes: 10 });
  assert.deepEqual(want([layer]).wanted, []);
});

test('addresses of a layer that is not foreign are not asked', () => {
  const { wanted } = want([layerOf(1, { urls: ['https://a.example/1'] })], true);
  assert.equal(wanted[0]?.blob.url, `https://registry/${digestOf(1)}`);
  assert.deepEqual(wanted[0]?.otherUrls, []);
});

test('the layers of an image have the DiffIDs of its config, and nothing is in an empty store', (t) => {
  const layers = [1, 2].map((name) => layerOf(name).descriptor);
  const diffIds = [digestOf(101), digestOf(102)];
  const image = { manifest: { layers }, config: { diffIds } } as unknown as Parameters<typeof imageLayers>[0];
  const found = imageLayers(image, storePaths(temporaryDirectory(t)));
  assert.deepEqual(
    found.map(({ diffId, cachedTarBytes, kind }) => [diffId, cachedTarBytes, kind.format]),
    diffIds.map((diffId) => [diffId, undefined, 'gzip']),
  );
});
