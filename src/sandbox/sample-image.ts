import type { Digest } from '../format/digest.js';
import { OCI_MANIFEST } from '../format/manifest.js';
import { writeChunkedLayer } from './chunked-writer.js';
import type { LayerWriter, WrittenLayer } from './layer-writer.js';
import { createLayout, type Descriptor, nameManifest, openBlob, putJson } from './oci-layout.js';

/** A writer of layers and their media type (OCI image-spec, layer.md). */
export interface FormatWriter {
  readonly mediaType: string;
  readonly write: LayerWriter;
}

const ZSTD_CHUNKED: FormatWriter = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
  write: writeChunkedLayer,
};

export interface ImageOptions extends Partial<FormatWriter> {
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
