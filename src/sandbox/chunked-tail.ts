import { createHash } from 'node:crypto';
import { compress } from '@mongodb-js/zstd';
import { type Digest, digestOfBytes } from '../format/digest.js';

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
