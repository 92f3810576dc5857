import { createHash, randomUUID } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Digest, digestHex, digestOfBytes } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { OCI_INDEX, OCI_MANIFEST } from '../format/manifest.js';
import { type Fields, isObject } from '../format/strict-json.js';
import { writeChunkedLayer } from './chunked-writer.js';
import type { LayerWriter, WrittenLayer } from './layer-writer.js';
import { REF_NAME } from './layout-reader.js';

/** A writer of layers and their media type (OCI image-spec, layer.md). */
export interface FormatWriter {
  readonly mediaType: string;
  readonly write: LayerWriter;
}

const ZSTD_CHUNKED: FormatWriter = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
  write: writeChunkedLayer,
};

interface ImageOptions extends Partial<FormatWriter> {
  /** The OCI image layout to create or to add to. */
  readonly layoutDir: string;
  /** The image's name in the layout; replaces an image of this name. */
  readonly ref: string;
  /** The layers' tars, lowest first. */
  readonly tars: Iterable<Iterable<Buffer>>;
  /** Called with the tar bytes written so far, all layers together. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

interface SampleLayer extends WrittenLayer {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly blobBytes: number;
}

export interface SampleResult {
  readonly manifestDigest: Digest;
  readonly layers: readonly SampleLayer[];
  readonly tarBytes: number;
  readonly blobBytes: number;
}

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';

/**
 * Adds an image to an OCI image layout, which is created if it is missing. Layers are zstd:chunked
 * by default; equal layers are stored once, and equal options give equal digests.
 * @throws PullError `metadata-malformed` or `unsupported` for a tar that cannot be a layer; errors
 *   of the file system
 */
export async function writeImage(options: ImageOptions): Promise<SampleResult> {
  const { layoutDir, ref, tars, mediaType, write } = { ...ZSTD_CHUNKED, ...options };
  createLayout(layoutDir);
  let doneBytes = 0;
  const onBytes = (bytes: number) => {
    doneBytes += bytes;
    options.onProgress?.(doneBytes);
  };
  const layers: SampleLayer[] = [];
  for (const tar of tars) layers.push(await writeLayer(layoutDir, { mediaType, write }, tar, onBytes));
  const manifest = writeManifest(layoutDir, layers);
  nameManifest(layoutDir, ref, manifest);
  const sum = (key: 'tarBytes' | 'blobBytes') => layers.reduce((total, layer) => total + layer[key], 0);
  return {
    manifestDigest: manifest.digest,
    layers,
    tarBytes: sum('tarBytes'),
    blobBytes: sum('blobBytes'),
  };
}

async function writeLayer(
  layoutDir: string,
  { mediaType, write }: FormatWriter,
  tar: Iterable<Buffer>,
  onBytes: (bytes: number) => void,
): Promise<SampleLayer> {
  const blob = openBlob(layoutDir);
  try {
    const layer = await write(tar, blob.write, onBytes);
    const { digest, sizeBytes } = blob.finish();
    return { ...layer, mediaType, digest, blobBytes: sizeBytes };
  } catch (error) {
    blob.discard();
    throw error;
  }
}

function writeManifest(layoutDir: string, layers: readonly SampleLayer[]): Descriptor {
  const config = putJson(layoutDir, CONFIG_TYPE, {
    architecture: 'amd64',
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
  });
  return putJson(layoutDir, OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config,
    layers: layers.map(({ mediaType, digest, blobBytes, annotations }) => ({
      mediaType,
      digest,
      size: blobBytes,
      ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
    })),
  });
}

/** A descriptor (OCI image-spec, descriptor.md). */
interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Writes a new blob of a layout. */
export interface BlobWriter {
  write(bytes: Buffer): void;
  /** Completes the blob and renames it to its digest. */
  finish(): { digest: Digest; sizeBytes: number };
  /** Deletes the unfinished blob. */
  discard(): void;
}

const HINT = 'repair the layout, or choose a directory that does not exist yet';

/** Small frames are collected up to this size before they are written. */
const WRITE_BYTES = 2 ** 20;

/**
 * Creates an OCI image layout in a directory if it is missing (OCI image-spec, image-layout.md).
 */
export function createLayout(layoutDir: string): void {
  mkdirSync(join(layoutDir, 'blobs', 'sha256'), { recursive: true });
  writeFileSync(join(layoutDir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

/** Opens a new blob of a layout. */
export function openBlob(layoutDir: string): BlobWriter {
  const blobs = join(layoutDir, 'blobs', 'sha256');
  const path = join(blobs, `.${randomUUID()}.tmp`);
  const file = openSync(path, 'wx');
  const hash = createHash('sha256');
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let sizeBytes = 0;
  const flush = () => {
    const bytes = Buffer.concat(waiting, waitingBytes);
    waiting = [];
    waitingBytes = 0;
    hash.update(bytes);
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  };
  return {
    write(bytes) {
      waiting.push(bytes);
      waitingBytes += bytes.length;
      sizeBytes += bytes.length;
      if (waitingBytes >= WRITE_BYTES) flush();
    },
    finish() {
      flush();
      closeSync(file);
      const digest = digestOfBytes(hash.digest());
      renameSync(path, join(blobs, digestHex(digest)));
      return { digest, sizeBytes };
    },
    discard() {
      closeSync(file);
      rmSync(path, { force: true });
    },
  };
}

/** Writes a JSON document as a blob. */
export function putJson(layoutDir: string, mediaType: string, value: object): Descriptor {
  const blob = openBlob(layoutDir);
  blob.write(Buffer.from(JSON.stringify(value)));
  const { digest, sizeBytes } = blob.finish();
  return { mediaType, digest, size: sizeBytes };
}

/**
 * Adds a manifest to index.json under a name, replacing an entry with the same name.
 * @throws PullError `metadata-malformed` for a malformed index.json
 */
export function nameManifest(layoutDir: string, ref: string, manifest: Descriptor): void {
  const path = join(layoutDir, 'index.json');
  const others = readIndex(path).filter((entry) => refOf(entry) !== ref);
  const manifests = [...others, { ...manifest, annotations: { [REF_NAME]: ref } }];
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  writeFileSync(`${path}.tmp`, JSON.stringify(index));
  renameSync(`${path}.tmp`, path);
}

function readIndex(path: string): Fields[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
  try {
    const index: unknown = JSON.parse(text);
    const manifests = isObject(index) ? index['manifests'] : undefined;
    if (Array.isArray(manifests) && manifests.every(isObject)) return manifests;
  } catch (cause) {
    throw new PullError('metadata-malformed', `${path} is not JSON`, { hint: HINT, cause });
  }
  throw new PullError('metadata-malformed', `${path} is not an OCI image index`, { hint: HINT });
}

function refOf({ annotations }: Fields): unknown {
  return isObject(annotations) ? annotations[REF_NAME] : undefined;
}
