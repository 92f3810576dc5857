import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { compress } from '@mongodb-js/zstd';
import { type Digest, digestOfBytes } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { TarEntry, TarTime } from '../format/tar-header.js';
import { TextSpool } from './layer-writer.js';

/** A chunk of a content in the TOC; `blobStart` is known once its frame is written. */
export interface TocChunk {
  readonly offset: number;
  sizeBytes: number;
  digest: string;
  zeros: boolean;
  blobStart: number;
}

/** A content in the TOC. */
export interface TocContent {
  readonly digest: string;
  readonly blobEnd: number;
  readonly chunks: readonly TocChunk[];
}

const TYPES: Readonly<Record<string, string>> = {
  '0': 'reg',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'dir',
  '6': 'fifo',
};

/**
 * Returns the type of a TOC entry (containers/storage, pkg/chunked/internal/minimal).
 * @throws PullError `unsupported` for an entry without a type in TOCs, such as a global pax header
 */
export function tocType(entry: TarEntry): string {
  const type = TYPES[entry.type];
  if (type !== undefined) return type;
  throw new PullError('unsupported', `a TOC cannot have a tar entry of type ${JSON.stringify(entry.type)}`, {
    hint: 'repack the layer with plain files, directories, links and devices',
  });
}

/** Go's zero time, which writers before 1.44 write for a missing time. */
const ZERO_TIME = '0001-01-01T00:00:00Z';

/** Returns the JSON objects of a tar entry and of its further chunks, separated by commas. */
export function tocText(entry: TarEntry, content: TocContent | undefined, zeroTimes: boolean): string {
  const noTime = zeroTimes ? ZERO_TIME : undefined;
  const [first, ...further] = content?.chunks ?? [];
  const isSplit = further.length > 0;
  const name = goText(entry.name);
  const fields = {
    type: tocType(entry),
    name,
    linkName: goText(entry.linkName) || undefined,
    mode: entry.mode || undefined,
    size: entry.sizeBytes || undefined,
    uid: entry.uid || undefined,
    gid: entry.gid || undefined,
    modtime: timeText(entry.mtime),
    accesstime: entry.atime ? timeText(entry.atime) : noTime,
    changetime: entry.ctime ? timeText(entry.ctime) : noTime,
    devMajor: entry.devMajor || undefined,
    devMinor: entry.devMinor || undefined,
    xattrs: xattrsOf(entry),
    digest: content?.digest,
    offset: first?.blobStart,
    endOffset: content?.blobEnd,
    ...(isSplit && first !== undefined ? chunkFields(first) : {}),
  };
  let text = goJson(fields);
  for (const chunk of further) {
    text += `,${goJson({ type: 'chunk', name, offset: chunk.blobStart, ...chunkFields(chunk) })}`;
  }
  return text;
}

function chunkFields(chunk: TocChunk): object {
  return {
    chunkSize: chunk.sizeBytes,
    chunkOffset: chunk.offset || undefined,
    chunkDigest: chunk.digest,
    chunkType: chunk.zeros ? 'zeros' : undefined,
  };
}

/** Returns extended attributes in base64, sorted by the bytes of the keys as Go sorts a map. */
export function xattrsOf(entry: TarEntry): object | undefined {
  if (entry.xattrs.size === 0) return undefined;
  const pairs = [...entry.xattrs].map(([key, value]) => [goText(Buffer.from(key, 'latin1')), value] as const);
  pairs.sort(([left], [right]) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
  return Object.fromEntries(pairs.map(([key, value]) => [key, value.toString('base64')]));
}

/**
 * Formats a time by RFC 3339 in UTC, without trailing zeros in the fraction.
 * @throws PullError `unsupported` for a year outside of 0 to 9999
 */
export function timeText(time: TarTime): string {
  const date = new Date(time.seconds * 1000);
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() < 0 || date.getUTCFullYear() > 9999) {
    throw new PullError('unsupported', 'the tar has a time outside of the years 0 to 9999', {
      hint: 'repack the layer with other times',
    });
  }
  const whole = date.toISOString().slice(0, 19);
  if (time.nanos === 0) return `${whole}Z`;
  return `${whole}.${String(time.nanos).padStart(9, '0').replace(/0+$/, '')}Z`;
}

/**
 * The lines of a tar-split (vbatts/tar-split, tar/storage): raw bytes, and one line for each entry.
 */
export class TarSplitText {
  readonly #spool = new TextSpool();
  #position = 0;

  /** Adds tar bytes that are not content. */
  raw(bytes: Buffer): void {
    this.#spool.add(`{"type":2,"payload":"${bytes.toString('base64')}","position":${this.#position++}}\n`);
  }

  /** Adds a tar entry; `crc` is the checksum of its content, if it has a size. */
  entry(entry: TarEntry, crc: Buffer | undefined): void {
    const named = isUtf8(entry.name)
      ? { name: entry.name.toString() || undefined }
      : { name_raw: entry.name.toString('base64') };
    const size = entry.sizeBytes || undefined;
    const payload = crc === undefined ? null : crc.toString('base64');
    const line = { type: 1, ...named, size, payload, position: this.#position++ };
    this.#spool.add(`${goJson(line)}\n`);
  }

  toBuffer(): Buffer {
    return this.#spool.toBuffer();
  }
}

/**
 * Represents a byte that is not UTF-8: decoded text never has a lone surrogate, and JSON.stringify
 * escapes it.
 */
const INVALID = '\udc80';

/** Escapes of JSON.stringify, and characters that only Go's encoder escapes. */
const ESCAPED = /\\(?:u[0-9a-f]{4}|.)|[<>&\u2028\u2029]/g;

/** Encodes JSON as Go does: `<`, `>`, `&`, line separators and invalid bytes as `\uXXXX`. */
export function goJson(value: unknown, indent = ''): string {
  return JSON.stringify(value, undefined, indent).replace(ESCAPED, (found) => {
    if (found.length === 1) return `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`;
    return found === '\\udc80' ? '\\ufffd' : found;
  });
}

/** Decodes bytes for goJson, which writes each byte outside of UTF-8 sequences as U+FFFD. */
export function goText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString();
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const end = endOfSequence(bytes, at);
    text += end === at ? INVALID : bytes.toString('utf8', at, end);
    at = end === at ? at + 1 : end;
  }
  return text;
}

/** Returns the end of the UTF-8 sequence at `start`, or `start` if there is none. */
function endOfSequence(bytes: Buffer, start: number): number {
  for (let end = start + 1; end <= Math.min(start + 4, bytes.length); end += 1) {
    if (isUtf8(bytes.subarray(start, end))) return end;
  }
  return start;
}

/** Differences between releases of the reference writer (containers/storage, pkg/chunked). */
export interface ChunkedDialect {
  /** Prefix of the annotations. */
  readonly prefix: string;
  /** Where the digest of the compressed tar-split is; undefined without a tar-split. */
  readonly tarSplitDigest: 'toc' | 'annotation' | undefined;
  /** The end of the footer. */
  readonly magic: string;
  /** Whether the TOC has the year 1 for a time of access or change that the tar does not have. */
  readonly zeroTimes: boolean;
}

/** The prefix of releases up to 1.43 and of stargz-snapshotter's converter. */
export const OLD_PREFIX = 'io.containers.zstd-chunked.';
/** The magic of the 40-byte footer; the 64-byte one spells it differently. */
export const OLD_MAGIC = 'GnUlInUx';
const PREFIX = 'io.github.containers.zstd-chunked.';
const MAGIC = 'GNUlInUx';

/** 1.54 and later. */
export const CURRENT_DIALECT: ChunkedDialect = {
  prefix: PREFIX,
  tarSplitDigest: 'toc',
  magic: MAGIC,
  zeroTimes: false,
};

/** 1.50 to 1.53. */
export const ANNOTATED_DIALECT: ChunkedDialect = { ...CURRENT_DIALECT, tarSplitDigest: 'annotation' };

/** 1.31 to 1.43. */
export const OLD_DIALECT: ChunkedDialect = {
  prefix: OLD_PREFIX,
  tarSplitDigest: undefined,
  magic: OLD_MAGIC,
  zeroTimes: true,
};

/** Compressed metadata. */
interface CompressedText {
  readonly bytes: Buffer;
  readonly uncompressedBytes: number;
  /** Digest of the compressed bytes. */
  readonly digest: Digest;
}

const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_HEADER_BYTES = 8;
/** The only defined type of TOC. */
const TOC_TYPE = 1;

/** Compresses a text as one zstd frame. */
export async function compressText(raw: Buffer): Promise<CompressedText> {
  const bytes = await compress(raw);
  const digest = digestOfBytes(createHash('sha256').update(bytes).digest());
  return { bytes, uncompressedBytes: raw.length, digest };
}

/**
 * Writes TOC, optional tar-split and footer after the data frames, each in a skippable frame.
 * @returns the values of the position annotations of TOC and tar-split
 */
export function writeTail(
  write: (bytes: Buffer) => void,
  dataEnd: number,
  magic: string,
  toc: CompressedText,
  tarSplit?: CompressedText,
): [toc: string, tarSplit: string] {
  const tocOffset = dataEnd + SKIPPABLE_HEADER_BYTES;
  const tocNumbers = [tocOffset, toc.bytes.length, toc.uncompressedBytes, TOC_TYPE];
  write(skippable(toc.bytes));
  let splitNumbers: number[] = [];
  if (tarSplit !== undefined) {
    const splitOffset = tocOffset + toc.bytes.length + SKIPPABLE_HEADER_BYTES;
    splitNumbers = [splitOffset, tarSplit.bytes.length, tarSplit.uncompressedBytes];
    write(skippable(tarSplit.bytes));
  }
  const numbers = [...tocNumbers, ...splitNumbers];
  const footer = Buffer.alloc(numbers.length * 8 + magic.length);
  for (const [row, value] of numbers.entries()) footer.writeBigUInt64LE(BigInt(value), row * 8);
  footer.write(magic, numbers.length * 8, 'latin1');
  write(skippable(footer));
  return [tocNumbers.join(':'), splitNumbers.join(':')];
}

/** Returns a skippable frame (RFC 8878, section 3.1.2). */
function skippable(content: Buffer): Buffer {
  const head = Buffer.alloc(SKIPPABLE_HEADER_BYTES);
  head.writeUInt32LE(SKIPPABLE_MAGIC, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}
