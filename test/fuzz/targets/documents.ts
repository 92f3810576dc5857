/** What names an image's parts: manifests, configs, annotations. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseDigest } from '../../../src/format/digest.js';
import { checkLayerCount, parseConfig } from '../../../src/format/image-config.js';
import { JsonCursor } from '../../../src/format/json-cursor.js';
import { layerKind } from '../../../src/format/layer-format.js';
import { parseManifest } from '../../../src/format/manifest.js';
import {
  parseChunkedAnnotations,
  parseChunkedFooter,
  parseEstargzFooter,
} from '../../../src/format/metadata-position.js';
import { strictParser } from '../../../src/format/strict-json.js';
import { nameInIndex } from '../../../src/pull/oci-layout.js';
import { mutatedJson } from '../json.js';
import { EDGE_NUMBERS, mutated, mutatedText } from '../mutate.js';
import { chunkedLayer, layerOf } from '../seeds.js';
import { type Target, target, tolerate } from '../target.js';

const DIGEST = parseDigest(`sha256:${'0123456789abcdef'.repeat(4)}`, 'it');
const LAYER = 'application/vnd.oci.image.layer.v1.tar';

const MANIFEST = {
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 300 },
  layers: [
    {
      mediaType: `${LAYER}+zstd`,
      digest: DIGEST,
      size: 5_000_000,
      annotations: { a: 'b' },
      urls: ['https://x/'],
    },
    { mediaType: `${LAYER}+gzip`, digest: DIGEST, size: 5 },
  ],
};

const INDEX = {
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.index.v1+json',
  manifests: [
    {
      mediaType: MANIFEST.mediaType,
      digest: DIGEST,
      size: 400,
      platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
      annotations: { 'org.opencontainers.image.ref.name': 'tag' },
    },
  ],
};

const CONFIG = {
  architecture: 'amd64',
  os: 'linux',
  config: { Env: ['A=B'], Cmd: ['sh'] },
  rootfs: { type: 'layers', diff_ids: [DIGEST, DIGEST] },
  history: [{ created_by: 'x' }],
};

const WORDS = ['layers', 'manifests', 'size', 'digest', 'schemaVersion', 'fsLayers', DIGEST, '__proto__'];
const TYPES = [MANIFEST.mediaType, INDEX.mediaType, `${MANIFEST.mediaType}; charset=utf-8`, 'text/html'];

const REFUSALS = ['metadata-malformed', 'unsupported'] as const;

const manifest = target(
  'manifest',
  fc.tuple(mutatedJson([MANIFEST, INDEX], WORDS), fc.option(mutatedText(TYPES), { nil: undefined })),
  ([bytes, mediaType]) => {
    const parsed = tolerate(() => parseManifest(bytes, mediaType), ...REFUSALS);
    if (parsed === undefined) return;
    const named = parsed.kind === 'index' ? parsed.manifests : [parsed.config, ...parsed.layers];
    for (const { sizeBytes } of named) assert.ok(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0);
    if (parsed.kind === 'index') return;
    for (const layer of parsed.layers) tolerate(() => layerKind(layer), ...REFUSALS);
  },
);

const config = target(
  'config',
  fc.tuple(mutatedJson([CONFIG], WORDS), mutatedText(TYPES)),
  ([bytes, mediaType]) => {
    const parsed = tolerate(() => parseConfig(bytes, mediaType), ...REFUSALS);
    const image = parseManifest(Buffer.from(JSON.stringify(MANIFEST)));
    if (parsed === undefined || image.kind !== 'manifest') return;
    tolerate(() => checkLayerCount(image, parsed), ...REFUSALS);
  },
);

const layoutIndex = target('layout-index', mutatedJson([INDEX], WORDS), (before) => {
  const root = { mediaType: MANIFEST.mediaType, digest: DIGEST, bytes: Buffer.from('{}') };
  const named = tolerate(
    () => nameInIndex(before, root as Parameters<typeof nameInIndex>[1], 'tag'),
    ...REFUSALS,
  );
  if (named === undefined) return;
  const entries = JSON.parse(named.toString()).manifests as { annotations?: Record<string, string> }[];
  const tagged = entries.filter(
    ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === 'tag',
  );
  assert.equal(tagged.length, 1);
});

const json = target('json', mutatedJson([MANIFEST, CONFIG, [1, -2.5e3, 'ä\n', null, true, {}]]), (bytes) => {
  const cursor = new JsonCursor(bytes, 'It');
  const accepted = tolerate(() => {
    cursor.skipValue();
    cursor.end();
    return true;
  }, 'metadata-malformed');
  if (accepted === true) JSON.parse(bytes.toString('utf8'));
});

const parseStrictly = strictParser({ layers: { size: 'integer', digest: null }, config: { digest: null } });

const strictJson = target('strict-json', mutatedJson([MANIFEST, CONFIG], WORDS), (bytes) => {
  const value = tolerate(() => parseStrictly(bytes, 'It'), 'metadata-malformed');
  // What was accepted has no key twice: nothing is lost when it is written again.
  if (value === undefined) return;
  const text = JSON.stringify(value);
  assert.equal(JSON.stringify(parseStrictly(Buffer.from(text), 'It')), text);
});

const CHUNKED = await chunkedLayer();
const FOOTER = CHUNKED.blob.subarray(-64);
const ESTARGZ = (await layerOf('estargz')).blob;

const annotations = target(
  'annotations',
  fc.tuple(
    fc.array(
      fc.tuple(
        mutatedText(Object.keys(CHUNKED.annotations)),
        mutatedText([...Object.values(CHUNKED.annotations), ...EDGE_NUMBERS], [':', '1:2:3:1']),
      ),
      { maxLength: 3 },
    ),
    fc.oneof(fc.constant(CHUNKED.blob.length), fc.maxSafeNat()),
  ),
  ([changes, blobBytes]) => {
    const given = { ...CHUNKED.annotations, ...Object.fromEntries(changes) };
    const positions = tolerate(() => parseChunkedAnnotations(given, blobBytes), ...REFUSALS);
    for (const part of [positions?.toc, positions?.tarSplit]) {
      if (part !== undefined) assertInside(part, blobBytes);
    }
    const descriptor = {
      mediaType: `${LAYER}+zstd`,
      digest: DIGEST,
      sizeBytes: blobBytes,
      annotations: given,
    };
    for (const suffix of ['+zstd', '+gzip', '']) layerKind({ ...descriptor, mediaType: LAYER + suffix });
  },
);

const footer = target(
  'footer',
  fc.tuple(
    mutated([FOOTER, ESTARGZ.subarray(-51), ESTARGZ.subarray(-47)]),
    fc.oneof(fc.nat(2 ** 20), fc.maxSafeNat()),
  ),
  ([tail, blobBytes]) => {
    const chunked = parseChunkedFooter(tail, blobBytes);
    for (const part of [chunked?.toc, chunked?.tarSplit])
      if (part !== undefined) assertInside(part, blobBytes);
    const estargz = parseEstargzFooter(tail, blobBytes);
    if (estargz !== undefined) assertInside({ start: estargz.tocStart, end: estargz.tocEnd }, blobBytes);
  },
);

function assertInside({ start, end }: { start: number; end: number }, blobBytes: number): void {
  assert.ok(Number.isSafeInteger(start) && Number.isSafeInteger(end));
  assert.ok(0 <= start && start < end && end <= blobBytes, `[${start}, ${end}) of ${blobBytes}`);
}

export const DOCUMENT_TARGETS: readonly Target[] = [
  manifest,
  config,
  layoutIndex,
  json,
  strictJson,
  annotations,
  footer,
];
