import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLayerCount, MAX_CONFIG_BYTES, parseConfig as parse } from '../../../src/format/image-config.js';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  MAX_BLOB_BYTES,
  MAX_INDEX_ENTRIES,
  MAX_LAYERS,
  MAX_MANIFEST_BYTES,
  OCI_INDEX,
  OCI_MANIFEST,
  parseManifest,
} from '../../../src/format/manifest.js';
import { IMAGES, readBlob, readImage, sha256, throwsError } from './fixture.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const parseConfig = (bytes: Buffer) => parse(bytes, 'application/vnd.oci.image.config.v1+json');
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
type Fields = Record<string, unknown>;

const descriptor = (more: Fields = {}): Fields => ({
  mediaType: OCI_MANIFEST,
  digest: DIGEST,
  size: 5,
  ...more,
});
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
    const blob = readBlob(image.config.digest);
    assert.equal(sha256(blob), image.config.digest);
    const config = parseConfig(blob);
    checkLayerCount(image, config);
    assert.equal(config.diffIds.length, 3);
    assert.deepEqual([config.os, config.architecture, config.variant], ['linux', 'amd64', undefined]);
    assert.ok(image.layers.every((layer) => layer.sizeBytes === readBlob(layer.digest).length));
  }
});

test('all four kinds of manifest are distinguished by what they state', () => {
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
  assert.equal(parseManifest(bytes({ ...bare, mediaType: null, layers: undefined })).mediaType, OCI_MANIFEST);
  assert.equal(
    parseManifest(bytes({ ...bare, mediaType: 'text/plain' }), DOCKER_MANIFEST).mediaType,
    DOCKER_MANIFEST,
  );
  assert.equal(parseManifest(bytes({ manifests: [] })).mediaType, OCI_INDEX);
});

test('an index keeps the platforms and annotations of its entries', () => {
  const annotated = descriptor({ annotations: { a: 'b' }, platform: null });
  const parsed = parseManifest(
    bytes(index({ manifests: [...(index()['manifests'] as Fields[]), annotated] })),
  );
  assert.ok(parsed.kind === 'index');
  assert.deepEqual(parsed.manifests[0], {
    mediaType: OCI_MANIFEST,
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
  ['both layers and manifests', { ...manifest(), manifests: [] }, /has manifests/],
  ['both layers and those of schema 1', { ...manifest(), fsLayers: [] }, /has fsLayers/],
  ['an index with layers', { ...index(), layers: [] }, /has layers/],
  ['an index with a config', { ...index(), config: descriptor() }, /has config/],
  ['another schemaVersion', manifest({ schemaVersion: 99 }), /has a schemaVersion that is not 2/],
  ['that of schema 1', manifest({ schemaVersion: 1 }), /has a schemaVersion that is not 2/],
  ['a schemaVersion as text', index({ schemaVersion: '2' }), /has a schemaVersion that is not 2/],
  [
    'a size that no registry takes',
    manifest({ layers: [descriptor({ size: MAX_BLOB_BYTES + 1 })] }),
    /layers\[0\]\.size is 549755813889 bytes; at most 549755813888/,
  ],
  ['a media type that is no string', manifest({ mediaType: 5 }), /mediaType is not a string/],
  ['a size as text', manifest({ config: descriptor({ size: '5' }) }), /config\.size is not a size in bytes/],
  ['a negative size', manifest({ layers: [descriptor({ size: -1 })] }), /layers\[0\]\.size is not a size/],
  [
    'a fraction of a byte',
    manifest({ layers: [descriptor({ size: 0.5 })] }),
    /has "0\.5" where an integer must be/,
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
];

for (const [what, value, message] of malformed) {
  test(`a manifest with ${what} is malformed`, () => {
    throwsError(() => parseManifest(bytes(value)), 'metadata-malformed', message);
  });
}

test('bytes that are no JSON, no UTF-8 or too many are malformed', () => {
  throwsError(
    () => parseManifest(Buffer.from('{')),
    'metadata-malformed',
    /The manifest is malformed at byte 1/,
  );
  throwsError(
    () => parseManifest(Buffer.from([0x22, 0xff, 0x22])),
    'metadata-malformed',
    /The manifest is not UTF-8/,
  );
  const long = Buffer.alloc(MAX_MANIFEST_BYTES + 1, ' ');
  throwsError(() => parseManifest(long), 'metadata-malformed', /is 4194305 bytes long; at most 4194304/);
});

test('a manifest may leave its schemaVersion out', () => {
  const { schemaVersion: _, ...bare } = manifest();
  assert.equal(parseManifest(bytes(bare)).kind, 'manifest');
});

test('a size of -0 is 0, as Go reads it, and what is refused for its size names its blob', () => {
  const text = JSON.stringify(manifest()).replaceAll('"size":5', '"size":-0');
  const parsed = parseManifest(Buffer.from(text));
  assert.ok(parsed.kind === 'manifest' && Object.is(parsed.layers[0]?.sizeBytes, 0));
  const large = bytes(manifest({ layers: [descriptor({ size: 2 ** 44 })] }));
  assert.throws(() => parseManifest(large), { code: 'metadata-malformed', layer: DIGEST });
});

/** Keys by which Go finds a field, where JavaScript has another: what stands for it in a document, and the field. */
const VARIANTS: ReadonlyArray<readonly [pattern: RegExp, key: string]> = [
  [/"config"/, 'Config'],
  [/"layers"/, 'LAYERS'],
  [/"layers"/, 'layer\u017f'],
  [/"schemaVersion"/, 'schemaversion'],
  [/"mediaType"/, 'MediaType'],
  [/"digest"/, 'Digest'],
  [/"size"/, '\\u017fize'],
  [/"size"/, 's\\u0069zE'],
];

for (const [pattern, key] of VARIANTS) {
  test(`a manifest with the key ${key} is malformed, alone and beside the one it stands for`, () => {
    const text = JSON.stringify(manifest());
    const beside = text.replace(pattern, (name) => `"${key}":0,${name}`);
    for (const changed of [text.replace(pattern, `"${key}"`), beside]) {
      assert.notEqual(changed, text);
      const message = /which some programs take for/;
      throwsError(() => parseManifest(Buffer.from(changed)), 'metadata-malformed', message);
    }
  });
}

test('an image of two images is none', () => {
  const a = descriptor();
  const b = descriptor({ digest: `sha256:${'b'.repeat(64)}` });
  const both = { ...manifest({ config: a, layers: [a] }), Config: b, Layers: [b] };
  throwsError(() => parseManifest(bytes(both)), 'metadata-malformed', /has the key "Config"/);
  const pair = { ...manifest(), Manifests: [b] };
  throwsError(() => parseManifest(bytes(pair)), 'metadata-malformed', /has the key "Manifests"/);
  const entry = { ...descriptor(), platform: { os: 'linux', architecture: 'arm', Architecture: 'amd64' } };
  throwsError(
    () => parseManifest(bytes(index({ manifests: [entry] }))),
    'metadata-malformed',
    /"Architecture"/,
  );
  const twice = JSON.stringify(manifest()).replace('"layers"', '"layers":[],"l\\u0061yers"');
  throwsError(() => parseManifest(Buffer.from(twice)), 'metadata-malformed', /the key "layers" twice/);
});

test('annotations may differ by case only, but none may be there twice', () => {
  const annotated = manifest({ layers: [descriptor({ annotations: { a: '1', A: '2', Size: '3' } })] });
  const text = JSON.stringify(annotated);
  assert.equal(parseManifest(Buffer.from(text)).kind, 'manifest');
  const twice = text.replace('"A"', '"a"');
  throwsError(() => parseManifest(Buffer.from(twice)), 'metadata-malformed', /the key "a" twice/);
});

test('a manifest that was sent as an index is malformed', () => {
  throwsError(() => parseManifest(bytes(manifest()), OCI_INDEX), 'metadata-malformed', /but was sent as/);
  assert.equal(parseManifest(bytes(manifest()), DOCKER_MANIFEST).mediaType, OCI_MANIFEST);
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
  ['a rootfs that is a list', config({ rootfs: [] }), /rootfs is not an object/],
  ['another kind of rootfs', config({ rootfs: { type: 'files' } }), /rootfs\.type of the image config/],
  [
    'a DiffID that is none',
    config({ rootfs: { type: 'layers', diff_ids: ['x'] } }),
    /diff_ids\[0\] is not a sha256/,
  ],
  ['DiffIDs as text', config({ rootfs: { type: 'layers', diff_ids: DIGEST } }), /diff_ids is not a list/],
];

for (const [what, value, message] of malformedConfigs) {
  test(`a config with ${what} is malformed`, () => {
    throwsError(() => parseConfig(bytes(value)), 'metadata-malformed', message);
  });
}

const ambiguousConfigs: ReadonlyArray<readonly [what: string, value: Fields]> = [
  ['two lists of layers', config({ RootFS: { type: 'layers', diff_ids: [] } })],
  ['DiffIDs by another name', config({ rootfs: { type: 'layers', diff_ids: [DIGEST], Diff_IDs: [] } })],
  ['an architecture by another name', config({ ARCHITECTURE: 'amd64' })],
  ['a Kelvin sign', config({ config: { 'Healthchec\u212a': null } })],
  ['another program to run', config({ config: { Entrypoint: ['/a'], entrypoint: ['/b'] } })],
  ['another health check', config({ config: { Healthcheck: { Test: [], test: ['CMD', 'b'] } } })],
  ['another history', config({ history: [{ empty_layer: true, Empty_Layer: false }] })],
];

for (const [what, value] of ambiguousConfigs) {
  test(`a config with ${what} is malformed`, () => {
    throwsError(() => parseConfig(bytes(value)), 'metadata-malformed', /which some programs take for/);
  });
}

test('labels of a config may differ by case only', () => {
  const labelled = config({
    config: { Labels: { a: '1', A: '2' }, Env: null },
    Size: 7,
    id: 'x',
    'os.version': '10',
  });
  assert.equal(parseConfig(bytes(labelled)).os, 'linux');
});

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
