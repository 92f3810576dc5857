import { isHeader, TAR_BLOCK_BYTES } from './tar-fields.js';

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
