import { type Digest, isDigest } from './digest.js';
import { PullError, shorten } from './error.js';
import { type Descriptor, mediaTypeOf } from './manifest.js';
import { type ChunkedPositions, parseChunkedAnnotations } from './metadata-position.js';
import { isHeader, TAR_BLOCK_BYTES } from './tar-fields.js';

/** How the blob of a layer is made. */
export type LayerFormat = 'zstd:chunked' | 'zstd:chunked-no-tarsplit' | 'estargz' | 'gzip' | 'zstd' | 'tar';

/** Where to find the table of contents of a chunked layer. */
export type MetadataLocation =
  | ({ readonly by: 'annotations' } & ChunkedPositions)
  /** At the end of the blob, if it is chunked at all. */
  | { readonly by: 'footer'; readonly compression: 'zstd' }
  /**
   * `tocDigest` is that of the decoded TOC. `otherwise`: where it may be if the blob has no such
   * footer.
   */
  | {
      readonly by: 'footer';
      readonly compression: 'gzip';
      readonly tocDigest: Digest;
      readonly otherwise?: Exclude<MetadataLocation, { readonly compression: 'gzip' }>;
    };

/** What a layer is according to its descriptor. */
export interface LayerKind {
  readonly format: LayerFormat;
  /** As stated by the media type, else the most likely one. The first bytes of the blob decide. */
  readonly compression: Compression;
  /** Which field of the descriptor says so, for people. */
  readonly reason: string;
  /** Absent for an opaque layer. */
  readonly location?: MetadataLocation;
  /** Why the annotations are ignored, if they are. */
  readonly problem?: string;
  /**
   * Not in the registry but at its `urls`: foreign in Docker's words, non-distributable in OCI's.
   */
  readonly foreign: boolean;
}

/** RFC 6838, 4.2: the names of type and subtype have at most 127 characters each. */
const MAX_SHOWN_TYPE_LENGTH = 255;

const ESTARGZ_TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';

/**
 * A smaller zstd blob without annotations is not asked for a footer: the request would take longer
 * than it could save. Annotations get lost where an image is stored as Docker schema 2.
 */
const MIN_FOOTER_BLOB_BYTES = 4 * 2 ** 20;

const OCI = 'application/vnd.oci.image.layer.v1.tar';
const OCI_FOREIGN = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar';
const DOCKER_FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar';

/** Names that writers used before those of OCI and Docker, and names of tar in general. */
const OTHER_TARS = [
  'application/vnd.oci.image.layer.tar',
  'application/vnd.oci.image.serialization.rootfs.tar',
  'application/vnd.docker.container.image.rootfs.diff.tar',
  'application/tar',
  'application/x-tar',
];

/**
 * Media types of layers and their compression, with the suffixes of both (OCI image-spec layer.md,
 * Docker image manifest v2 schema 2).
 */
const COMPRESSIONS: ReadonlyMap<string, Compression> = new Map([
  ...[OCI, OCI_FOREIGN, DOCKER, DOCKER_FOREIGN, ...OTHER_TARS].flatMap(
    (tar): Array<[string, Compression]> => [
      [tar, 'tar'],
      [`${tar}+gzip`, 'gzip'],
      [`${tar}.gzip`, 'gzip'],
      [`${tar}+zstd`, 'zstd'],
      [`${tar}.zstd`, 'zstd'],
    ],
  ),
  ['application/gzip', 'gzip'],
  ['application/x-gzip', 'gzip'],
  ['application/zstd', 'zstd'],
]);

/**
 * Types that do not say what a layer is. Those that a registry makes up for web pages and texts are
 * not accepted.
 */
const OPEN_TYPES: ReadonlySet<string> = new Set(['', 'application/octet-stream', 'binary/octet-stream']);

/** The most likely compression of a layer whose media type does not say. */
const USUAL_COMPRESSION = 'gzip';

/** Returns the compression that a layer's media type states, undefined if it states none. */
export function statedCompression(mediaType: string): Compression | undefined {
  return COMPRESSIONS.get(mediaTypeOf(mediaType));
}

/**
 * Whether a layer need not be in the registry: foreign in Docker's words, non-distributable in
 * OCI's.
 */
export function isForeign({ mediaType }: Descriptor): boolean {
  const type = mediaTypeOf(mediaType);
  return type.startsWith(OCI_FOREIGN) || type.startsWith(DOCKER_FOREIGN);
}

/**
 * Returns the format of a layer by its annotations, whatever its media type says of the
 * compression, else by its media type.
 * @throws PullError `unsupported` for a media type that is not of a layer
 */
export function layerKind(layer: Descriptor): LayerKind {
  const { mediaType, sizeBytes, annotations } = layer;
  const stated = statedCompression(mediaType);
  if (stated === undefined && !OPEN_TYPES.has(mediaTypeOf(mediaType))) throw noLayer(layer);
  const compression = stated ?? USUAL_COMPRESSION;
  const foreign = isForeign(layer);
  const opaque = { format: compression, compression, reason: `media type ${mediaType}`, foreign };
  // Without a size no position in the blob can be checked.
  if (sizeBytes === 0) return opaque;
  const chunked = chunkedLocation(layer, stated);
  const tocDigest = annotations?.[ESTARGZ_TOC_DIGEST];
  // nerdctl's zstd:chunked layers have this annotation as well.
  const isChunked = chunked?.location?.by === 'annotations' && stated === 'zstd';
  if (tocDigest === undefined || isChunked || chunked?.problem !== undefined)
    return { ...opaque, ...chunked };
  if (!isDigest(tocDigest))
    return { ...opaque, problem: `The annotation ${ESTARGZ_TOC_DIGEST} is no digest` };
  const otherwise = chunked?.location;
  return {
    ...opaque,
    format: 'estargz',
    reason: `annotation ${ESTARGZ_TOC_DIGEST}`,
    location: { by: 'footer', compression: 'gzip', tocDigest, ...(otherwise && { otherwise }) },
  };
}

interface ChunkedLocation extends Partial<Pick<LayerKind, 'format' | 'reason' | 'problem'>> {
  readonly location?: Exclude<MetadataLocation, { readonly compression: 'gzip' }>;
}

/**
 * Returns where the metadata of a layer is if it is zstd:chunked; undefined if nothing says that it
 * is.
 */
function chunkedLocation(
  { annotations, sizeBytes }: Descriptor,
  stated: Compression | undefined,
): ChunkedLocation | undefined {
  try {
    const positions = parseChunkedAnnotations(annotations, sizeBytes);
    if (positions !== undefined) return chunkedKind(positions);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    // A layer that says it is something else has them left over from what it was before.
    return stated === 'zstd' ? { problem: error.message } : undefined;
  }
  const mayHaveFooter = stated === 'zstd' && sizeBytes >= MIN_FOOTER_BLOB_BYTES;
  return mayHaveFooter ? { location: { by: 'footer', compression: 'zstd' } } : undefined;
}

function noLayer({ mediaType, digest }: Descriptor): PullError {
  return new PullError(
    'unsupported',
    `layer ${digest} has the media type ${JSON.stringify(shorten(mediaType, MAX_SHOWN_TYPE_LENGTH))}`,
    {
      layer: digest,
      hint: mediaTypeOf(mediaType).endsWith('+encrypted')
        ? 'encrypted layers need keys; pull it with skopeo or nerdctl, which can decrypt'
        : 'zpull takes layers that are tar, gzip or zstd',
    },
  );
}

function chunkedKind(positions: ChunkedPositions): ChunkedLocation {
  const split = positions.tarSplit !== undefined;
  return {
    format: split ? 'zstd:chunked' : 'zstd:chunked-no-tarsplit',
    reason: `annotations ${positions.dialect}*${split ? ' with' : ' without'} tar-split`,
    location: { by: 'annotations', ...positions },
  };
}

/** The compression of the tar of a layer. */
export type Compression = 'gzip' | 'zstd' | 'tar';

/** How many of a blob's first bytes `compressionOf` needs: a tar header. */
export const HEAD_BYTES = TAR_BLOCK_BYTES;

/** RFC 1952, section 2.3.1: the magic number, and the only compression method. */
const GZIP = Buffer.from([0x1f, 0x8b, 8]);
/** RFC 8878, sections 3.1.1 and 3.1.2. The first byte of a skippable frame is one of sixteen. */
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const ZSTD_SKIPPABLE = Buffer.from([0x2a, 0x4d, 0x18]);

/**
 * Other compressions of layers by their first bytes. Docker decodes them; no specification of
 * images has them.
 */
const OTHERS = [
  { name: 'xz', magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]) },
  { name: 'bzip2', magic: Buffer.from('BZh') },
] as const;

/**
 * Returns the compression of a blob by its first HEAD_BYTES bytes, or all of them: `stated` if they
 * fit it, and if they say nothing. The DiffID proves which one it is.
 */
export function compressionOf(head: Buffer, stated: Compression): Compression {
  const isTar = isHeader(head) || isZeros(head);
  if (stated === 'tar' && isTar) return 'tar';
  if (begins(head, GZIP)) return 'gzip';
  if (begins(head, ZSTD) || (begins(head.subarray(1), ZSTD_SKIPPABLE) && head[0]! >>> 4 === 5)) return 'zstd';
  return isTar ? 'tar' : stated;
}

/**
 * Returns the name of an unsupported compression by a blob's first bytes; undefined for anything
 * else.
 */
export function otherCompression(head: Buffer): string | undefined {
  if (isHeader(head)) return undefined;
  return OTHERS.find(({ magic }) => begins(head, magic))?.name;
}

function begins(head: Buffer, magic: Buffer): boolean {
  return head.length >= magic.length && head.subarray(0, magic.length).equals(magic);
}

/** Whether the bytes are those of an empty tar. */
function isZeros(head: Buffer): boolean {
  return head.length >= TAR_BLOCK_BYTES && head.every((byte) => byte === 0);
}
