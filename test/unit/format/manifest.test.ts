import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkLayerCount,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  MAX_CONFIG_BYTES,
  MAX_INDEX_ENTRIES,
  MAX_LAYERS,
  MAX_MANIFEST_BYTES,
  OCI_INDEX,
  OCI_MANIFEST,
  parseConfig,
  parseManifest,
  requireImage,
} from '../../../src/format/manifest.js';
import { IMAGES, readBlob, readImage, sha256, throwsError } from './fixture.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
type Fields = Record<string, unknown>;

const descriptor = (more: Fields = {}): Fields => ({ mediaType: 'x/y', digest: DIGEST, size: 5, ...more });
const manifest = (more: Fields = {}): Fields => ({
  schemaVersion: 2,
  mediaType: OCI_MANIFEST,
  config: descriptor({ mediaType: 'application/vnd.oci.image.config.v1+json' }),
  layers: [descriptor()],
  ...more,
});
const index = (more: Fields = {}): Fields => ({
  schemaVersion: 2,
  mediaType: OCI_INDEX,
  manifests: [descriptor({ platform: { os: 'linux', architecture: 'arm', variant: 'v7', features: ['x'] } })],
  ...more,
});

test('the fixtures are images whose configs name a DiffID for each layer', () => {
  for (const digest of IMAGES) {
    const image = readImage(digest);
    requireImage(image);
    const blob = readBlob(image.config.digest);
    assert.equal(sha256(blob), image.config.digest);
    const config = parseConfig(blob);
    checkLayerCount(image, config);
    assert.equal(config.diffIds.length, 3);
    assert.deepEqual([config.os, config.architecture, config.variant], ['linux', 'amd64', undefined]);
    assert.ok(image.layers.every((layer) => layer.sizeBytes === readBlob(layer.digest).length));
  }
});

test('all four kinds of manifest are told apart by what they say of themselves', () => {
  for (const mediaType of [OCI_MANIFEST, DOCKER_MANIFEST]) {
    const parsed = parseManifest(bytes(manifest({ mediaType })));
    assert.deepEqual([parsed.kind, parsed.mediaType], ['manifest', mediaType]);
  }
  for (const mediaType of [OCI_INDEX, DOCKER_LIST]) {
    const parsed = parseManifest(bytes(index({ mediaType })));
    assert.deepEqual([parsed.kind, parsed.mediaType], ['index', mediaType]);
  }
});

test('a manifest that does not say what it is goes by the header, then by its fields', () => {
  const { mediaType: _, ...bare } = manifest();
  assert.equal(parseManifest(bytes(bare), `${DOCKER_MANIFEST}; charset=utf-8`).mediaType, DOCKER_MANIFEST);
  assert.equal(parseManifest(bytes(bare), 'application/octet-stream').mediaType, OCI_MANIFEST);
  assert.equal(parseManifest(bytes(bare)).mediaType, OCI_MANIFEST);
  assert.equal(parseManifest(bytes({ manifests: [] })).mediaType, OCI_INDEX);
});

test('an index keeps the platforms and annotations of its entries', () => {
  const annotated = descriptor({ annotations: { a: 'b' }, platform: null });
  const parsed = parseManifest(
    bytes(index({ manifests: [...(index()['manifests'] as Fields[]), annotated] })),
  );
  assert.ok(parsed.kind === 'index');
  assert.deepEqual(parsed.manifests[0], {
    mediaType: 'x/y',
    digest: DIGEST,
    sizeBytes: 5,
    platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
  });
  assert.equal(parsed.manifests[1]?.platform, undefined);
  assert.equal(parsed.manifests[1]?.annotations?.['a'], 'b');
});

test('a layer keeps its addresses', () => {
  const parsed = parseManifest(
    bytes(manifest({ layers: [descriptor({ urls: ['https://x/y'], annotations: null })] })),
  );
  assert.ok(parsed.kind === 'manifest');
  assert.deepEqual(parsed.layers[0]?.urls, ['https://x/y']);
  assert.equal(parsed.layers[0]?.annotations, undefined);
});

test('annotations named like what every object has are only annotations', () => {
  const text = JSON.stringify(manifest({ layers: [descriptor({ annotations: { X: 'y' } })] }));
  const parsed = parseManifest(Buffer.from(text.replace('"X"', '"__proto__"')));
  assert.ok(parsed.kind === 'manifest');
  const annotations = parsed.layers[0]?.annotations;
  assert.deepEqual(Object.entries(annotations ?? {}), [['__proto__', 'y']]);
  assert.equal(annotations?.['constructor'], undefined);
});

test('a manifest cannot borrow its fields from a prototype', () => {
  const text = `{"mediaType":"${OCI_MANIFEST}","__proto__":${JSON.stringify(manifest())}}`;
  throwsError(() => parseManifest(Buffer.from(text)), 'metadata-malformed', /config is not an object/);
});

const unsupported: [string, Fields, string | undefined, RegExp][] = [
  ['schema 1 by its number', { schemaVersion: 1, fsLayers: [] }, undefined, /manifest\.v1\+json/],
  [
    'schema 1 by its type',
    { mediaType: 'application/vnd.docker.distribution.manifest.v1+prettyjws' },
    undefined,
    /prettyjws/,
  ],
  ['an OCI artifact', { mediaType: 'application/vnd.oci.artifact.manifest.v1+json' }, undefined, /artifact/],
  ['another type by the header', { hello: 1 }, 'text/html; charset=utf-8', /media type "text\/html"/],
  ['something without a type', {}, undefined, /media type "unknown"/],
  [
    'sha512',
    manifest({ layers: [descriptor({ digest: `sha512:${'a'.repeat(128)}` })] }),
    undefined,
    /layers\[0\]\.digest is a sha512/,
  ],
];

for (const [what, value, header, message] of unsupported) {
  test(`${what} is not supported`, () => {
    throwsError(() => parseManifest(bytes(value), header), 'unsupported', message);
  });
}

const many = (n: number) => Array.from({ length: n }, () => descriptor());
const malformed: [string, unknown, RegExp][] = [
  ['a list', [], /The manifest is not an object/],
  ['null', null, /The manifest is not an object/],
  ['no config', { ...manifest(), config: undefined }, /config is not an object/],
  ['no layers', { ...manifest(), layers: undefined }, /layers is not a list/],
  ['no manifests', { ...index(), manifests: undefined }, /manifests is not a list/],
  ['both layers and manifests', { ...manifest(), manifests: [] }, /has manifests/],
  ['an index with layers', { ...index(), layers: [] }, /has layers/],
  ['a media type that is no string', manifest({ mediaType: 5 }), /mediaType is not a string/],
  ['a size as text', manifest({ config: descriptor({ size: '5' }) }), /config\.size is not a size in bytes/],
  ['a negative size', manifest({ layers: [descriptor({ size: -1 })] }), /layers\[0\]\.size is not a size/],
  [
    'a fraction of a byte',
    manifest({ layers: [descriptor({ size: 0.5 })] }),
    /layers\[0\]\.size is not a size/,
  ],
  [
    'an unsafe size',
    manifest({ layers: [descriptor({ size: 2 ** 53 })] }),
    /layers\[0\]\.size is not a size/,
  ],
  [
    'a digest with a path',
    manifest({ layers: [descriptor({ digest: 'sha256:../x' })] }),
    /layers\[0\]\.digest is not/,
  ],
  ['a layer that is no object', manifest({ layers: [7] }), /layers\[0\] is not an object/],
  [
    'a layer without a type',
    manifest({ layers: [descriptor({ mediaType: null })] }),
    /layers\[0\]\.mediaType is not/,
  ],
  [
    'annotations as a list',
    manifest({ layers: [descriptor({ annotations: [] })] }),
    /annotations is not an object/,
  ],
  [
    'an annotation as number',
    manifest({ layers: [descriptor({ annotations: { a: 1 } })] }),
    /annotations\["a"\] is/,
  ],
  ['addresses as text', manifest({ layers: [descriptor({ urls: 'x' })] }), /layers\[0\]\.urls is not a list/],
  ['too many layers', manifest({ layers: many(MAX_LAYERS + 1) }), /layers has 1001 entries; at most 1000/],
  ['too many entries', index({ manifests: many(MAX_INDEX_ENTRIES + 1) }), /manifests has 4097 entries/],
  [
    'a platform without a system',
    index({ manifests: [descriptor({ platform: {} })] }),
    /platform\.os is not a string/,
  ],
  [
    'a variant as number',
    index({ manifests: [descriptor({ platform: { os: 'a', architecture: 'b', variant: 7 } })] }),
    /platform\.variant/,
  ],
];

for (const [what, value, message] of malformed) {
  test(`a manifest with ${what} is malformed`, () => {
    throwsError(() => parseManifest(bytes(value)), 'metadata-malformed', message);
  });
}

test('bytes that are no JSON, no UTF-8 or too many are malformed', () => {
  throwsError(() => parseManifest(Buffer.from('{')), 'metadata-malformed', /The manifest is not JSON/);
  throwsError(
    () => parseManifest(Buffer.from([0x22, 0xff, 0x22])),
    'metadata-malformed',
    /The manifest is not JSON/,
  );
  const long = Buffer.alloc(MAX_MANIFEST_BYTES + 1, ' ');
  throwsError(() => parseManifest(long), 'metadata-malformed', /is 4194305 bytes long; at most 4194304/);
});

test('a manifest that was sent as an index is malformed', () => {
  throwsError(() => parseManifest(bytes(manifest()), OCI_INDEX), 'metadata-malformed', /but was sent as/);
  assert.equal(parseManifest(bytes(manifest()), DOCKER_MANIFEST).mediaType, OCI_MANIFEST);
});

test('what is no image is named by the media type of its config', () => {
  const chart = manifest({ config: descriptor({ mediaType: 'application/vnd.cncf.helm.config.v1+json' }) });
  const parsed = parseManifest(bytes(chart));
  assert.ok(parsed.kind === 'manifest');
  throwsError(() => requireImage(parsed), 'unsupported', /application\/vnd\.cncf\.helm\.config\.v1\+json/);
});

const config = (more: Fields = {}) => ({
  os: 'linux',
  architecture: 'arm',
  variant: 'v7',
  rootfs: { type: 'layers', diff_ids: [DIGEST] },
  ...more,
});

test('a config gives its platform and DiffIDs', () => {
  assert.deepEqual(parseConfig(bytes(config())), {
    os: 'linux',
    architecture: 'arm',
    variant: 'v7',
    diffIds: [DIGEST],
  });
  assert.deepEqual(parseConfig(bytes(config({ rootfs: { type: 'layers', diff_ids: null } }))).diffIds, []);
});

const malformedConfigs: [string, unknown, RegExp][] = [
  ['no rootfs', config({ rootfs: undefined }), /rootfs is not an object/],
  ['another kind of rootfs', config({ rootfs: { type: 'files' } }), /rootfs\.type of the image config/],
  [
    'a DiffID that is none',
    config({ rootfs: { type: 'layers', diff_ids: ['x'] } }),
    /diff_ids\[0\] is not a sha256/,
  ],
  ['no architecture', config({ architecture: undefined }), /image config\.architecture is not a string/],
  ['DiffIDs as text', config({ rootfs: { type: 'layers', diff_ids: DIGEST } }), /diff_ids is not a list/],
];

for (const [what, value, message] of malformedConfigs) {
  test(`a config with ${what} is malformed`, () => {
    throwsError(() => parseConfig(bytes(value)), 'metadata-malformed', message);
  });
}

test('a config that is too long is malformed', () => {
  throwsError(
    () => parseConfig(Buffer.alloc(MAX_CONFIG_BYTES + 1)),
    'metadata-malformed',
    /The image config is/,
  );
});

test('a config with more or fewer DiffIDs than layers is malformed', () => {
  const parsed = parseManifest(bytes(manifest({ layers: [] })));
  assert.ok(parsed.kind === 'manifest');
  const two = parseConfig(bytes(config()));
  throwsError(() => checkLayerCount(parsed, two), 'metadata-malformed', /has 0 layers, its config 1 DiffIDs/);
});
