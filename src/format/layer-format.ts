import { type Digest, isDigest } from './digest.js';
import { PullError } from './error.js';
import { type Descriptor, mediaTypeOf } from './manifest.js';
import { type ChunkedPositions, parseChunkedAnnotations } from './metadata-position.js';
import { isHeader, TAR_BLOCK_BYTES } from './tar-fields.js';
import { shorten } from './text.js';

export type LayerFormat = 'zstd:chunked' | 'zstd:chunked-no-tarsplit' | 'estargz' | 'gzip' | 'zstd' | 'tar';

/** Where a chunked layer's table of contents is found. */
export type MetadataLocation =
  | ({ readonly by: 'annotations' } & ChunkedPositions)
  /** At the end of the blob, if it is chunked at all. */
  | { readonly by: 'footer'; readonly compression: 'zstd' }
  /** `tocDigest` is that of the decoded TOC. `otherwise`: where it may be when the blob has no such footer. */
  | {
      readonly by: 'footer';
      readonly compression: 'gzip';
      readonly tocDigest: Digest;
      readonly otherwise?: Exclude<MetadataLocation, { readonly compression: 'gzip' }>;
    };

/** What a layer is, as its descriptor tells. */
export interface LayerKind {
  readonly format: LayerFormat;
  /** As the media type states it, else the most likely one: the blob's first bytes decide. */
  readonly compression: Compression;
  /** What of the descriptor says so, for people. */
  readonly reason: string;
  /** Absent for what is one stream. */
  readonly place?: MetadataLocation;
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

/** What writers called them before OCI and Docker had settled on names, and what names any tar. */
const OTHER_TARS = [
  'application/vnd.oci.image.layer.tar',
  'application/vnd.oci.image.serialization.rootfs.tar',
  'application/vnd.docker.container.image.rootfs.diff.tar',
  'application/tar',
  'application/x-tar',
];

/** Media types of layers and their compression (OCI image-spec layer.md, Docker image manifest v2 schema 2), with either's mark. */
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

/** Types that leave open what a layer is; those that a registry makes up for pages and texts do not. */
const OPEN_TYPES: ReadonlySet<string> = new Set(['', 'application/octet-stream', 'binary/octet-stream']);

/** What a layer is most likely compressed with when its media type says nothing. */
const USUAL_COMPRESSION = 'gzip';

/** The compression that a layer's media type states, undefined when it states none. */
export function statedCompression(mediaType: string): Compression | undefined {
  return COMPRESSIONS.get(mediaTypeOf(mediaType));
}

/** Whether a layer is not for every registry to hold: foreign in Docker's words, non-distributable in OCI's. */
export function isForeign({ mediaType }: Descriptor): boolean {
  const type = mediaTypeOf(mediaType);
  return type.startsWith(OCI_FOREIGN) || type.startsWith(DOCKER_FOREIGN);
}

/**
 * The format of a layer by annotation, whatever its media type says of the compression, else by media type.
 * @throws PullError `unsupported` for a media type that is no layer
 */
export function layerKind(layer: Descriptor): LayerKind {
  const { mediaType, sizeBytes, annotations } = layer;
  const stated = statedCompression(mediaType);
  if (stated === undefined && !OPEN_TYPES.has(mediaTypeOf(mediaType))) throw noLayer(layer);
  const compression = stated ?? USUAL_COMPRESSION;
  const foreign = isForeign(layer);
  const whole = { format: compression, compression, reason: `media type ${mediaType}`, foreign };
  // Without a size nothing can be said of where in the blob its metadata lies.
  if (sizeBytes === 0) return whole;
  const chunked = chunkedPlace(layer, stated);
  const tocDigest = annotations?.[ESTARGZ_TOC_DIGEST];
  // nerdctl's zstd:chunked has this annotation as well.
  const isChunked = chunked?.place?.by === 'annotations' && stated === 'zstd';
  if (tocDigest === undefined || isChunked || chunked?.problem !== undefined) return { ...whole, ...chunked };
  if (!isDigest(tocDigest)) return { ...whole, problem: `The annotation ${ESTARGZ_TOC_DIGEST} is no digest` };
  const otherwise = chunked?.place;
  return {
    ...whole,
    format: 'estargz',
    reason: `annotation ${ESTARGZ_TOC_DIGEST}`,
    place: { by: 'footer', compression: 'gzip', tocDigest, ...(otherwise && { otherwise }) },
  };
}

interface ChunkedPlace extends Partial<Pick<LayerKind, 'format' | 'reason' | 'problem'>> {
  readonly place?: Exclude<MetadataLocation, { readonly compression: 'gzip' }>;
}

/** Where the metadata of a layer is if it is zstd:chunked; undefined when nothing says that it is. */
function chunkedPlace(
  { annotations, sizeBytes }: Descriptor,
  stated: Compression | undefined,
): ChunkedPlace | undefined {
  try {
    const positions = parseChunkedAnnotations(annotations, sizeBytes);
    if (positions !== undefined) return chunkedKind(positions);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    // Of a layer that is said to be something else they are left from what it was before.
    return stated === 'zstd' ? { problem: error.message } : undefined;
  }
  const mayHaveFooter = stated === 'zstd' && sizeBytes >= LEAST_FOOTER_BLOB_BYTES;
  return mayHaveFooter ? { place: { by: 'footer', compression: 'zstd' } } : undefined;
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

function chunkedKind(positions: ChunkedPositions): ChunkedPlace {
  const split = positions.tarSplit !== undefined;
  return {
    format: split ? 'zstd:chunked' : 'zstd:chunked-no-tarsplit',
    reason: `annotations ${positions.dialect}*${split ? ' with' : ' without'} tar-split`,
    place: { by: 'annotations', ...positions },
  };
}

/** How the tar of a layer is compressed. */
export type Compression = 'gzip' | 'zstd' | 'tar';

/** How many of a blob's first bytes `compressionOf` looks at: a tar header. */
export const HEAD_BYTES = TAR_BLOCK_BYTES;

/** RFC 1952, section 2.3.1: the magic number, and the only compression method there is. */
const GZIP = Buffer.from([0x1f, 0x8b, 8]);
/** RFC 8878, sections 3.1.1 and 3.1.2: of skippable frames the first byte is one of sixteen. */
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const ZSTD_SKIPPABLE = Buffer.from([0x2a, 0x4d, 0x18]);

/** What layers are compressed with elsewhere, by their first bytes. Docker decodes them; no specification of images has them. */
const OTHERS = [
  { name: 'xz', magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]) },
  { name: 'bzip2', magic: Buffer.from('BZh') },
] as const;

/**
 * What a blob is by its first HEAD_BYTES bytes, or all of them: `stated` where they can be that, and where they tell nothing. Which one it is
 * is proven by the DiffID.
 */
export function compressionOf(head: Buffer, stated: Compression): Compression {
  const isTar = isHeader(head) || isZeros(head);
  if (stated === 'tar' && isTar) return 'tar';
  if (begins(head, GZIP)) return 'gzip';
  if (begins(head, ZSTD) || (begins(head.subarray(1), ZSTD_SKIPPABLE) && head[0]! >>> 4 === 5)) return 'zstd';
  return isTar ? 'tar' : stated;
}

/** The name of a compression that is not supported, by a blob's first bytes; undefined for anything else. */
export function otherCompression(head: Buffer): string | undefined {
  if (isHeader(head)) return undefined;
  return OTHERS.find(({ magic }) => begins(head, magic))?.name;
}

function begins(head: Buffer, magic: Buffer): boolean {
  return head.length >= magic.length && head.subarray(0, magic.length).equals(magic);
}

/** A tar of nothing. */
function isZeros(head: Buffer): boolean {
  return head.length >= TAR_BLOCK_BYTES && head.every((byte) => byte === 0);
}
