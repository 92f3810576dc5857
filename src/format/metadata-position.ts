import { type Digest, parseDigest } from './digest.js';
import { PullError } from './error.js';
import { formatBytes } from './figures.js';
import { SKIPPABLE_HEADER_BYTES } from './zstd-frame.js';

/** Where a TOC or tar-split lies in its blob, and what it decodes to. */
interface MetadataPosition {
  /**
   * Blob range [start, end) of the zstd frame; the header of the skippable frame lies 8 bytes
   * before.
   */
  readonly start: number;
  readonly end: number;
  readonly uncompressedBytes: number;
}

/** What a descriptor's annotations say about a zstd:chunked blob. */
export interface ChunkedPositions {
  /** The prefix of the annotations, which tells the version of the writer. */
  readonly dialect: string;
  /** `digest` is that of the compressed TOC. */
  readonly toc: MetadataPosition & { readonly digest: Digest };
  /**
   * Absent in blobs of older writers; the digest is present unless the TOC has it
   * (`tarSplitDigest`).
   */
  readonly tarSplit?: MetadataPosition & { readonly digest?: Digest };
}

/** Written by containers/storage since 1.44, and by it and nerdctl before. */
const PREFIXES = ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.'] as const;

const NUMBERS = /^\d{1,16}(:\d{1,16})+$/;
/** The only type of TOC. */
const TOC_TYPE = 1;

/**
 * Returns the positions in a layer descriptor's annotations, undefined if it has none. Their
 * lengths are checked by `metadataMemoryBytes`.
 * @param blobBytes size of the blob; every range must lie within it
 * @throws PullError `metadata-malformed` naming the annotation
 *   (docs/containers-storage-zstd-chunked.md of containers/storage describes them), `unsupported`
 *   for a digest other than sha256
 */
export function parseChunkedAnnotations(
  annotations: Readonly<Record<string, string>> | undefined,
  blobBytes: number,
): ChunkedPositions | undefined {
  if (annotations === undefined) return undefined;
  const value = (name: string) => (Object.hasOwn(annotations, name) ? annotations[name] : undefined);
  const dialect = PREFIXES.find((prefix) => Object.keys(annotations).some((name) => name.startsWith(prefix)));
  if (dialect === undefined) return undefined;

  const positionName = `${dialect}manifest-position`;
  const checksumName = `${dialect}manifest-checksum`;
  const position = value(positionName);
  const checksum = value(checksumName);
  if (position === undefined) throw malformed(positionName, 'is missing');
  if (checksum === undefined) throw malformed(checksumName, 'is missing');
  const numbers = parseNumbers(positionName, position, 4);
  if (numbers[3] !== TOC_TYPE) throw malformed(positionName, `has TOC type ${numbers[3]}; only 1 is known`);
  const toc = {
    ...checkPosition(positionName, numbers, blobBytes),
    digest: parseDigest(checksum, `The annotation ${checksumName}`),
  };

  const splitName = `${dialect}tarsplit-position`;
  const split = value(splitName);
  if (split === undefined) return { dialect, toc };
  const splitChecksumName = `${dialect}tarsplit-checksum`;
  const splitChecksum = value(splitChecksumName);
  const tarSplit = {
    ...checkPosition(splitName, parseNumbers(splitName, split, 3), blobBytes),
    ...(splitChecksum === undefined
      ? {}
      : { digest: parseDigest(splitChecksum, `The annotation ${splitChecksumName}`) }),
  };
  return { dialect, toc, tarSplit };
}

/** Parses an annotation like `12:34:56`, which must have exactly `count` numbers. */
function parseNumbers(name: string, text: string, count: number): number[] {
  if (!NUMBERS.test(text)) throw malformed(name, 'is not a list of numbers with colons between');
  const numbers = text.split(':').map(Number);
  if (numbers.length !== count) throw malformed(name, `has ${numbers.length} numbers instead of ${count}`);
  if (!numbers.every(Number.isSafeInteger)) throw malformed(name, 'has a number that is too large');
  return numbers;
}

function checkPosition(name: string, numbers: readonly number[], blobBytes: number): MetadataPosition {
  const [start = 0, bytes = 0, uncompressedBytes = 0] = numbers;
  if (start < SKIPPABLE_HEADER_BYTES) throw malformed(name, `starts at ${start}, inside a frame header`);
  if (bytes === 0 || uncompressedBytes === 0) throw malformed(name, 'describes an empty range');
  if (start + bytes > blobBytes) {
    throw malformed(name, `ends at ${start + bytes}, beyond the blob's ${blobBytes} bytes`);
  }
  return { start, end: start + bytes, uncompressedBytes };
}

function malformed(name: string, problem: string): PullError {
  return new PullError('metadata-malformed', `The annotation ${name} ${problem}`);
}

/**
 * A TOC has about a fiftieth of the length of its blob, more with small files; 256 KiB hold that of
 * 10,000 files.
 */
const MIN_GUESS_BYTES = 16 * 1024;
const MAX_GUESS_BYTES = 256 * 1024;
const GUESS_SHARE = 1 / 16;

/**
 * Returns how many bytes to read from the end of an eStargz blob for its footer, and often the TOC
 * before it.
 */
export function footerGuessBytes(blobBytes: number): number {
  return Math.min(MAX_GUESS_BYTES, Math.max(MIN_GUESS_BYTES, Math.ceil(blobBytes * GUESS_SHARE)));
}

/**
 * The content of the last skippable frame: u64le fields, then a magic number (containers/storage,
 * pkg/chunked).
 */
const CHUNKED_FOOTERS = [
  { bytes: 64, magic: 'GNUlInUx' },
  { bytes: 40, magic: 'GnUlInUx' },
] as const;

/** Length of the longest footer. Most zstd blobs have none, and no more is read to see that. */
export const CHUNKED_FOOTER_BYTES = 64;

/**
 * Returns the positions in the footer of a zstd:chunked blob, undefined if it has no valid one.
 * `tail` is the last bytes of a blob of `blobBytes` bytes. Lengths are checked by
 * `metadataMemoryBytes`. A footer is not authenticated: only the DiffID proves what it leads to.
 */
export function parseChunkedFooter(
  tail: Buffer,
  blobBytes: number,
): { readonly toc: MetadataPosition; readonly tarSplit?: MetadataPosition } | undefined {
  for (const { bytes, magic } of CHUNKED_FOOTERS) {
    if (tail.length < bytes || tail.toString('latin1', tail.length - magic.length) !== magic) continue;
    const fields = numbers(tail.subarray(tail.length - bytes, tail.length - magic.length));
    const toc = position(fields.slice(0, 3), blobBytes);
    if (toc === undefined || fields[3] !== TOC_TYPE) return undefined;
    const split = fields.slice(4);
    if (split.length === 0 || split.every((field) => field === 0)) return { toc };
    const tarSplit = position(split, blobBytes);
    return tarSplit === undefined ? undefined : { toc, tarSplit };
  }
  return undefined;
}

function numbers(fields: Buffer): number[] {
  return Array.from({ length: fields.length / 8 }, (_, i) => Number(fields.readBigUInt64LE(i * 8)));
}

function position(
  [start = 0, bytes = 0, uncompressedBytes = 0]: readonly number[],
  blobBytes: number,
): MetadataPosition | undefined {
  const end = start + bytes;
  const isSane = start >= SKIPPABLE_HEADER_BYTES && bytes > 0 && uncompressedBytes > 0 && end <= blobBytes;
  return isSane ? { start, end, uncompressedBytes } : undefined;
}

/**
 * An empty gzip member whose extra field has the offset of the TOC: in a subfield SG, or alone in
 * the legacy form.
 */
const ESTARGZ_FOOTERS = [
  { bytes: 51, extra: Buffer.from([26, 0, 0x53, 0x47, 22, 0]) },
  { bytes: 47, extra: Buffer.from([22, 0]) },
] as const;
const GZIP_WITH_EXTRA = Buffer.from([0x1f, 0x8b, 8, 4]);
const GZIP_HEADER_BYTES = 10;
/** Header, an empty block, checksum and length. */
const MIN_MEMBER_BYTES = 20;

/**
 * Returns the range of the TOC's gzip member in an eStargz blob (stargz-snapshotter,
 * docs/estargz.md), by the last bytes of the blob; undefined if it has no valid footer.
 */
export function parseEstargzFooter(
  tail: Buffer,
  blobBytes: number,
): { readonly tocStart: number; readonly tocEnd: number } | undefined {
  for (const { bytes, extra } of ESTARGZ_FOOTERS) {
    const footer = tail.subarray(Math.max(0, tail.length - bytes));
    if (footer.length < bytes || !footer.subarray(0, 4).equals(GZIP_WITH_EXTRA)) continue;
    if (!footer.subarray(GZIP_HEADER_BYTES, GZIP_HEADER_BYTES + extra.length).equals(extra)) continue;
    const text = footer.toString(
      'latin1',
      GZIP_HEADER_BYTES + extra.length,
      GZIP_HEADER_BYTES + extra.length + 22,
    );
    const [, digits] = /^([0-9a-f]{16})STARGZ$/.exec(text) ?? [];
    const tocStart = Number.parseInt(digits ?? '', 16);
    const tocEnd = blobBytes - bytes;
    if (tocEnd - tocStart >= MIN_MEMBER_BYTES) return { tocStart, tocEnd };
  }
  return undefined;
}

/**
 * Decoded bytes per compressed byte that a layer may have. Deflate cannot exceed it (zlib,
 * "Technical Details"), so a layer of more zeros could not have been pushed as gzip. zstd goes up
 * to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * Decoded bytes that all layers of a pull may have beyond that ratio. Databases and disk images
 * that are mostly holes are pushed as they are, with up to about 10 GiB; a bomb of 64 GiB ends
 * after this much. Zeros of this length take about ten seconds to hash; the free disk space that is
 * reserved stays free in any case.
 */
export const FREE_DECODED_BYTES = 10 * 2 ** 30;

/**
 * The largest decoded size of one decode call: more must be streamed, so that memory stays bounded.
 */
export const DECODE_CALL_BYTES = 32 * 2 ** 20;

/**
 * Memory for the metadata of one layer while it is read: TOC and tar-split, compressed and decoded,
 * and the rows made of them. A small file takes about 1.5 KB with a tar-split and 0.6 KB without:
 * 260,000 or 670,000 files. Larger layers are pulled as opaque.
 */
export const MAX_METADATA_MEMORY_BYTES = 384 * 2 ** 20;

/**
 * Decoded bytes per compressed byte of a TOC or tar-split. TOCs have 3 to 5 (digests do not
 * compress) and tar-splits 20 to 24; 30,000 empty directories with numbered names have 121.
 */
const MAX_METADATA_RATIO = 256;
/** The ratio of a few bytes says little. */
const FREE_RATIO_BYTES = 2 ** 20;

/**
 * Decoded bytes per compressed byte of TOC and tar-split together, beyond the first 96 MiB: real
 * layers have about 12. More than 300 MB of memory must be backed by a megabyte sent for every 32,
 * not by a stated length.
 */
const MAX_LARGE_METADATA_RATIO = 32;
const FREE_LARGE_RATIO_BYTES = 96 * 2 ** 20;

/** TOC or tar-split: its length in the blob, and its decoded length. */
export interface MetadataLength {
  readonly bytes: number;
  readonly uncompressedBytes: number;
}

/**
 * Returns the bytes of memory that reading a layer's metadata takes. Without tar-split the rows are
 * bounded only by the length of the entries they are made of.
 * @throws PullError `metadata-malformed` if a part would decode to more than metadata can,
 *   `unsupported` for more than MAX_METADATA_MEMORY_BYTES
 */
export function metadataMemoryBytes(toc: MetadataLength, tarSplit?: MetadataLength): number {
  const parts = tarSplit === undefined ? [toc] : [toc, tarSplit];
  for (const part of parts) checkRatio(part, MAX_METADATA_RATIO, FREE_RATIO_BYTES);
  const both = { bytes: sumOf(parts, 'bytes'), uncompressedBytes: sumOf(parts, 'uncompressedBytes') };
  checkRatio(both, MAX_LARGE_METADATA_RATIO, FREE_LARGE_RATIO_BYTES);
  const rowBytes = tarSplit === undefined ? toc.uncompressedBytes : 0;
  const memoryBytes = both.bytes + both.uncompressedBytes + rowBytes;
  if (memoryBytes <= MAX_METADATA_MEMORY_BYTES) return memoryBytes;
  throw new PullError(
    'unsupported',
    `reading its metadata takes ${formatBytes(memoryBytes)} of memory; ${formatBytes(MAX_METADATA_MEMORY_BYTES)} are the limit`,
  );
}

function sumOf(parts: readonly MetadataLength[], field: keyof MetadataLength): number {
  return parts.reduce((sum, part) => sum + part[field], 0);
}

function checkRatio({ bytes, uncompressedBytes }: MetadataLength, maxRatio: number, freeBytes: number): void {
  if (uncompressedBytes <= freeBytes + bytes * maxRatio) return;
  throw new PullError(
    'metadata-malformed',
    `its metadata would decode from ${formatBytes(bytes)} to ${formatBytes(uncompressedBytes)}; ${maxRatio} times as many are the limit`,
  );
}
