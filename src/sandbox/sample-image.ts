import type { Digest } from '../format/digest.js';
import { directoryTar } from './directory-source.js';
import type { WrittenLayer } from './layer-writer.js';
import { createLayout, type Descriptor, nameManifest, openBlob, putJson } from './oci-layout.js';
import { type FormatOptions, formatWriter, type SampleFormat } from './sample-format.js';
import { planTree, type TreeOptions } from './sample-tree.js';
import { fileTar, treeTar } from './tar-sources.js';

/** Where layers come from: a generated tree (a layer a share), a directory or a tar file (one layer each). */
export type SampleSource =
  | ({ readonly kind: 'tree' } & TreeOptions)
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'tar'; readonly path: string };

export interface SampleOptions extends FormatOptions {
  /** The OCI image layout to create or to add to. */
  readonly layoutDir: string;
  /** The image's name in the layout; an image of this name is replaced. */
  readonly ref: string;
  /** Lowest layer first. */
  readonly sources: readonly SampleSource[];
  /** What the layers are written as; zstd:chunked by default. */
  readonly format?: SampleFormat;
  /** Told the tar bytes done so far, all layers together. */
  readonly onProgress?: (doneBytes: number) => void;
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
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** Samples are of no date, so that the same options give the same digests; version 2 is a day younger. */
const MTIME_SECONDS = 1_700_000_000;
const DAY_SECONDS = 86_400;

/**
 * Writes an image into an OCI image layout, next to the images that are there; equal layers
 * are stored once. The same options give the same digests.
 * @throws PullError `metadata-malformed` or `unsupported` for a tar that cannot be a layer; errors of the file system
 */
export async function writeSampleImage(options: SampleOptions): Promise<SampleResult> {
  createLayout(options.layoutDir);
  let doneBytes = 0;
  const onBytes = (bytes: number) => {
    doneBytes += bytes;
    options.onProgress?.(doneBytes);
  };
  const layers: SampleLayer[] = [];
  for (const source of options.sources) {
    for (const tar of tarsOf(source)) layers.push(await writeLayer(options, tar, onBytes));
  }
  const manifest = writeManifest(options.layoutDir, layers);
  nameManifest(options.layoutDir, options.ref, manifest);
  const sum = (key: 'tarBytes' | 'blobBytes') => layers.reduce((total, layer) => total + layer[key], 0);
  return {
    manifestDigest: manifest.digest,
    layers,
    tarBytes: sum('tarBytes'),
    blobBytes: sum('blobBytes'),
  };
}

function* tarsOf(source: SampleSource): Generator<Iterable<Buffer>> {
  if (source.kind === 'tar') {
    yield fileTar(source.path);
  } else if (source.kind === 'directory') {
    yield directoryTar(source.path);
  } else {
    const mtimeSeconds = MTIME_SECONDS + (source.version - 1) * DAY_SECONDS;
    for (const items of planTree(source)) yield treeTar(items, mtimeSeconds);
  }
}

async function writeLayer(
  options: SampleOptions,
  tar: Iterable<Buffer>,
  onBytes: (bytes: number) => void,
): Promise<SampleLayer> {
  const { layoutDir, format = 'zstd:chunked' } = options;
  const { mediaType, write } = formatWriter(format, options);
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
  return putJson(layoutDir, MANIFEST_TYPE, {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config,
    layers: layers.map(({ mediaType, digest, blobBytes, annotations }) => ({
      mediaType,
      digest,
      size: blobBytes,
      ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
    })),
  });
}
