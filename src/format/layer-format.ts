import { type ChunkedPositions, parseChunkedAnnotations } from './annotations.js';
import { type Digest, isDigest } from './digest.js';
import { PullError } from './error.js';
import type { Descriptor } from './manifest.js';
import { shorten } from './text.js';

export type LayerFormat = 'zstd:chunked' | 'zstd:chunked-no-tarsplit' | 'estargz' | 'gzip' | 'zstd' | 'tar';

export type Compression = 'gzip' | 'zstd' | 'tar';

/** Where a chunked layer's table of contents is found. */
export type MetadataPlace =
  | ({ readonly by: 'annotations' } & ChunkedPositions)
  /** At the end of the blob, if it is chunked at all. `tocDigest` is that of the decoded TOC. */
  | { readonly by: 'footer'; readonly compression: 'gzip' | 'zstd'; readonly tocDigest?: Digest };

/** What a layer is, as its descriptor tells. */
export interface LayerKind {
  readonly format: LayerFormat;
  readonly compression: Compression;
  /** What of the descriptor says so, for people. */
  readonly reason: string;
  /** Absent for what is one stream. */
  readonly place?: MetadataPlace;
  /** What is wrong with the annotations, which then do not count. */
  readonly problem?: string;
  /** Not in the registry but where `urls` say: foreign in Docker's words, non-distributable in OCI's. */
  readonly foreign: boolean;
}

/** RFC 6838, 4.2: the names of type and subtype have at most 127 characters each. */
const MAX_SHOWN_TYPE_LENGTH = 255;

const ESTARGZ_TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';

/**
 * Below this a zstd blob without annotations is not asked for a footer: the request would take longer than it could save.
 * Annotations get lost where an image is kept as Docker schema 2.
 */
const LEAST_FOOTER_BLOB_BYTES = 4 * 2 ** 20;

const OCI = 'application/vnd.oci.image.layer.v1.tar';
const OCI_FOREIGN = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar';
const DOCKER_FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar';

/** Media types of layers and their compression (OCI image-spec layer.md, Docker image manifest v2 schema 2). */
const COMPRESSIONS: ReadonlyMap<string, Compression> = new Map(
  [OCI, OCI_FOREIGN, DOCKER, DOCKER_FOREIGN].flatMap((tar): Array<[string, Compression]> => {
    const mark = tar.startsWith('application/vnd.oci.') ? '+' : '.';
    return [
      [tar, 'tar'],
      [`${tar}${mark}gzip`, 'gzip'],
      [`${tar}${mark}zstd`, 'zstd'],
    ];
  }),
);

/** Whether a layer is not for every registry to hold: foreign in Docker's words, non-distributable in OCI's. */
export function isForeign({ mediaType }: Descriptor): boolean {
  return mediaType.startsWith(OCI_FOREIGN) || mediaType.startsWith(DOCKER_FOREIGN);
}

/**
 * The format of a layer by annotation, else by media type.
 * @throws PullError `unsupported` for a media type that is no layer
 */
export function layerKind(layer: Descriptor): LayerKind {
  const { mediaType, digest, sizeBytes, annotations } = layer;
  const compression = COMPRESSIONS.get(mediaType);
  if (compression === undefined) {
    throw new PullError(
      'unsupported',
      `layer ${digest} has the media type ${JSON.stringify(shorten(mediaType, MAX_SHOWN_TYPE_LENGTH))}`,
      {
        layer: digest,
        hint: mediaType.endsWith('+encrypted')
          ? 'encrypted layers need keys; pull it with skopeo or nerdctl, which can decrypt'
          : 'zpull takes layers that are tar, gzip or zstd',
      },
    );
  }
  const foreign = isForeign(layer);
  const whole = { format: compression, compression, reason: `media type ${mediaType}`, foreign };
  // Without a size nothing can be said of where in the blob its metadata lies.
  if (sizeBytes === 0) return whole;
  if (compression === 'zstd') {
    try {
      const positions = parseChunkedAnnotations(annotations, sizeBytes);
      if (positions !== undefined) return { ...whole, ...chunkedKind(positions) };
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      return { ...whole, problem: error.message };
    }
    const place = { by: 'footer', compression } as const;
    return sizeBytes >= LEAST_FOOTER_BLOB_BYTES ? { ...whole, place } : whole;
  }
  const tocDigest = annotations?.[ESTARGZ_TOC_DIGEST];
  if (compression !== 'gzip' || tocDigest === undefined) return whole;
  if (!isDigest(tocDigest)) return { ...whole, problem: `The annotation ${ESTARGZ_TOC_DIGEST} is no digest` };
  return {
    ...whole,
    format: 'estargz',
    reason: `annotation ${ESTARGZ_TOC_DIGEST}`,
    place: { by: 'footer', compression, tocDigest },
  };
}

function chunkedKind(positions: ChunkedPositions): Pick<LayerKind, 'format' | 'reason' | 'place'> {
  const split = positions.tarSplit !== undefined;
  return {
    format: split ? 'zstd:chunked' : 'zstd:chunked-no-tarsplit',
    reason: `annotations ${positions.dialect}*${split ? ' with' : ' without'} tar-split`,
    place: { by: 'annotations', ...positions },
  };
}
