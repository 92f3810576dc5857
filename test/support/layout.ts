import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { compress, decompress } from '@mongodb-js/zstd';
import { TAR_END, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { createLayout, nameManifest, openBlob } from '../../src/sandbox/image-writer.js';
import { FIXTURE_LAYOUT } from './fixture-layout.js';
import {
  type FormatOptions,
  type SampleFormat,
  type SampleResult,
  writeSampleImage,
} from './layers/sample-image.js';
import { type Lifetime, temporaryDirectory } from './temporary.js';

export interface DescriptorJson {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  urls?: string[];
  platform?: { os: string; architecture: string; variant?: string };
}

export interface ManifestJson {
  schemaVersion: 2;
  mediaType?: string;
  config: DescriptorJson;
  layers: DescriptorJson[];
}

export interface ConfigJson {
  architecture: string;
  os: string;
  rootfs: { type: 'layers'; diff_ids: string[] };
}

/** The parts of a TOC that tests change. */
interface TocJson {
  entries: Array<{
    type: string;
    name: string;
    digest?: string;
    size?: number;
    offset?: number;
    endOffset?: number;
  }>;
  tarSplitDigest?: string;
}

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** The suffix of a media type for each compression. */
export type Suffix = '' | '+gzip' | '+zstd';

const PREFIX = 'io.github.containers.zstd-chunked.';

/** A copy of the fixture layout that a test may change. */
export function fixtureCopy(t: Lifetime): string {
  const directory = temporaryDirectory(t);
  cpSync(FIXTURE_LAYOUT, directory, { recursive: true });
  return directory;
}

/** Creates an empty layout. */
export function emptyLayout(t: Lifetime): string {
  const directory = temporaryDirectory(t);
  createLayout(directory);
  return directory;
}

/** The bytes of a blob. */
export function readBlob(layout: string, digest: string): Buffer {
  return readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
}

/** Adds a blob and returns its digest. */
export function addBlob(layout: string, bytes: Buffer): `sha256:${string}` {
  const blob = openBlob(layout);
  blob.write(bytes);
  return blob.finish().digest as `sha256:${string}`;
}

/** Adds a JSON document as a blob and returns its descriptor. */
export function addJson(layout: string, mediaType: string, value: unknown): DescriptorJson {
  const bytes = Buffer.from(JSON.stringify(value));
  return { mediaType, digest: addBlob(layout, bytes), size: bytes.length };
}

/** The manifest that a ref names. */
export function readManifest(layout: string, ref: string): ManifestJson {
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: DescriptorJson[];
  };
  const entry = index.manifests.find(
    ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === ref,
  );
  if (entry === undefined) throw new Error(`no ${ref} in ${layout}`);
  return JSON.parse(readBlob(layout, entry.digest).toString()) as ManifestJson;
}

/** The config of a manifest. */
export function readConfig(layout: string, manifest: ManifestJson): ConfigJson {
  return JSON.parse(readBlob(layout, manifest.config.digest).toString()) as ConfigJson;
}

/** Names a document in the layout and returns its descriptor. */
export function nameDocument(layout: string, ref: string, mediaType: string, value: unknown): DescriptorJson {
  const descriptor = addJson(layout, mediaType, value);
  nameManifest(layout, ref, descriptor as Parameters<typeof nameManifest>[2]);
  return descriptor;
}

/** Names an image of these layers. */
export function nameImage(
  layout: string,
  ref: string,
  layers: readonly DescriptorJson[],
  diffIds: readonly string[],
): DescriptorJson {
  const config = addJson(layout, 'application/vnd.oci.image.config.v1+json', {
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  return nameDocument(layout, ref, OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config,
    layers,
  });
}

/** Changes an image: what `change` does to manifest and config becomes a new image of the same name. */
export function changeImage(
  layout: string,
  ref: string,
  change: (manifest: ManifestJson, config: ConfigJson) => void,
): void {
  const manifest = readManifest(layout, ref);
  const config = readConfig(layout, manifest);
  change(manifest, config);
  const descriptor = addJson(layout, manifest.config.mediaType, config);
  const mediaType = manifest.mediaType ?? OCI_MANIFEST;
  nameDocument(layout, ref, mediaType, { ...manifest, config: descriptor });
}

/** TOC and tar-split of a chunked layer, decoded. */
export interface Metadata {
  toc: TocJson;
  tarSplit: Buffer;
}

/** The metadata of a chunked layer. */
export async function readLayerMetadata(layout: string, layer: DescriptorJson): Promise<Metadata> {
  const { blob, toc, tarSplit } = parts(layout, layer);
  return {
    toc: JSON.parse((await decompress(blob.subarray(...toc))).toString()) as TocJson,
    tarSplit: await decompress(blob.subarray(...tarSplit)),
  };
}

/**
 * The layer with other metadata behind the same data frames: a new blob whose annotations and digests fit, so that
 * only what was changed is wrong.
 */
export async function withMetadata(
  layout: string,
  layer: DescriptorJson,
  change: (metadata: Metadata) => void,
): Promise<DescriptorJson> {
  const metadata = await readLayerMetadata(layout, layer);
  change(metadata);
  const { blob, toc } = parts(layout, layer);
  const data = blob.subarray(0, toc[0] - 8);
  const splitFrame = await compress(metadata.tarSplit, 3);
  metadata.toc.tarSplitDigest = addBlob(layout, splitFrame);
  const tocRaw = Buffer.from(JSON.stringify(metadata.toc));
  const tocFrame = await compress(tocRaw, 3);
  const tocAt = data.length + 8;
  const splitAt = tocAt + tocFrame.length + 8;
  const bytes = Buffer.concat([
    data,
    skippable(tocFrame),
    skippable(splitFrame),
    skippable(Buffer.alloc(64)),
  ]);
  return {
    ...layer,
    digest: addBlob(layout, bytes),
    size: bytes.length,
    annotations: {
      [`${PREFIX}manifest-checksum`]: addBlob(layout, tocFrame),
      [`${PREFIX}manifest-position`]: `${tocAt}:${tocFrame.length}:${tocRaw.length}:1`,
      [`${PREFIX}tarsplit-position`]: `${splitAt}:${splitFrame.length}:${metadata.tarSplit.length}`,
    },
  };
}

/** A layer of nerdctl's zstd:chunked with another TOC behind the same data, of which only that is wrong. */
export async function withStargzToc(
  layout: string,
  layer: DescriptorJson,
  change: (entries: Array<Record<string, unknown>>) => void,
): Promise<DescriptorJson> {
  const prefix = 'io.containers.zstd-chunked.';
  const [start = 0, length = 0] = layer.annotations![`${prefix}manifest-position`]!.split(':').map(Number);
  const blob = readBlob(layout, layer.digest);
  const toc = JSON.parse((await decompress(blob.subarray(start, start + length))).toString()) as {
    entries: Array<Record<string, unknown>>;
  };
  change(toc.entries);
  const raw = Buffer.from(JSON.stringify(toc));
  const frame = await compress(raw, 3);
  const bytes = Buffer.concat([blob.subarray(0, start - 8), skippable(frame), skippable(Buffer.alloc(40))]);
  return {
    ...layer,
    digest: addBlob(layout, bytes),
    size: bytes.length,
    annotations: {
      [`${prefix}manifest-checksum`]: addBlob(layout, frame),
      [`${prefix}manifest-position`]: `${start}:${frame.length}:${raw.length}:1`,
    },
  };
}

/** Returns the offsets of TOC and tar-split in the blob of a layer. */
export function metadataRanges(layer: DescriptorJson): { toc: [number, number]; tarSplit: [number, number] } {
  const range = (name: string): [number, number] => {
    const [start = 0, length = 0] = (layer.annotations?.[`${PREFIX}${name}`] ?? '').split(':').map(Number);
    return [start, start + length];
  };
  return { toc: range('manifest-position'), tarSplit: range('tarsplit-position') };
}

function parts(layout: string, layer: DescriptorJson) {
  return { blob: readBlob(layout, layer.digest), ...metadataRanges(layer) };
}

/** A skippable frame around these bytes (RFC 8878, 3.1.2). */
function skippable(bytes: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50, 0);
  header.writeUInt32LE(bytes.length, 4);
  return Buffer.concat([header, bytes]);
}

/** A tar of regular files. */
export function tarOf(files: Readonly<Record<string, Buffer>>): Buffer {
  const parts = Object.entries(files).flatMap(([name, bytes]) => [
    tarHeader({
      type: '0',
      name,
      mode: 0o644,
      uid: 0,
      gid: 0,
      sizeBytes: bytes.length,
      mtimeSeconds: 1_700_000_000,
      mtimeNanos: 0,
    }),
    bytes,
    tarPadding(bytes.length),
  ]);
  return Buffer.concat([...parts, TAR_END]);
}

/** An opaque layer. */
export async function addLayer(layout: string, tar: Buffer, suffix: Suffix): Promise<DescriptorJson> {
  const blob =
    suffix === '' ? tar : suffix === '+gzip' ? gzipSync(tar, { level: 1 }) : await compress(tar, 3);
  return { mediaType: `${OCI_LAYER}${suffix}`, digest: addBlob(layout, blob), size: blob.length };
}

/** Writes an image of these tars as chunked layers, lowest first. */
export function writeTars(
  t: Lifetime,
  layout: string,
  ref: string,
  tars: readonly Buffer[],
  format: SampleFormat = 'zstd:chunked',
  options: FormatOptions = {},
): Promise<SampleResult> {
  const directory = temporaryDirectory(t);
  mkdirSync(directory, { recursive: true });
  const sources = tars.map((tar, i) => {
    const path = join(directory, `${i}.tar`);
    writeFileSync(path, tar);
    return { kind: 'tar' as const, path };
  });
  return writeSampleImage({ layoutDir: layout, ref, sources, format, ...options });
}

/** Bytes that zstd cannot make smaller; the same seed gives the same. */
export function noise(seed: number, sizeBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let at = 0; at < sizeBytes; at++) {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    bytes[at] = state >>> 11;
  }
  return bytes;
}

/** `one` has a large layer, `two` has it and a small one of its own. */
export async function overlappingImages(t: Lifetime): Promise<string> {
  const layout = emptyLayout(t);
  const files = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`f${i}`, noise(i + 1, 2 ** 18)]));
  await writeTars(t, layout, 'one', [tarOf(files)]);
  await writeTars(t, layout, 'two', [tarOf(files), tarOf({ own: noise(50, 50_000) })]);
  return layout;
}
