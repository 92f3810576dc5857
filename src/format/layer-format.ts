import { type ChunkedPositions, parseChunkedAnnotations } from './annotations.js';
import { inLayer, PullError } from './error.js';
import type { Descriptor } from './manifest.js';

export type LayerFormat = 'zstd:chunked' | 'zstd:chunked-no-tarsplit' | 'estargz' | 'gzip' | 'zstd' | 'tar';

/** What a layer is, as its descriptor tells. */
export interface LayerKind {
  readonly format: LayerFormat;
  /** Where TOC and tar-split lie, for the chunked formats. */
  readonly positions?: ChunkedPositions;
}

const ESTARGZ_TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';

/** Media types of layers and their compression (OCI image-spec layer.md, Docker image manifest v2 schema 2). */
const COMPRESSIONS: ReadonlyMap<string, LayerFormat> = new Map([
  ['application/vnd.oci.image.layer.v1.tar', 'tar'],
  ['application/vnd.oci.image.layer.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'tar'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
] as const);

/**
 * The format of a layer by annotation, else by media type.
 * @throws PullError `unsupported` for a media type that is no layer, `metadata-malformed` for bad annotations
 */
export function layerKind(layer: Descriptor): LayerKind {
  const compression = COMPRESSIONS.get(layer.mediaType);
  if (compression === undefined) {
    throw new PullError('unsupported', `layer ${layer.digest} has the media type ${layer.mediaType}`, {
      layer: layer.digest,
      hint: 'zpull takes layers that are tar, gzip or zstd',
    });
  }
  try {
    const positions = parseChunkedAnnotations(layer.annotations, layer.sizeBytes);
    if (positions !== undefined) {
      return {
        format: positions.tarSplit === undefined ? 'zstd:chunked-no-tarsplit' : 'zstd:chunked',
        positions,
      };
    }
  } catch (error) {
    throw inLayer(error, layer.digest);
  }
  const estargz = compression === 'gzip' && layer.annotations?.[ESTARGZ_TOC_DIGEST] !== undefined;
  return { format: estargz ? 'estargz' : compression };
}
