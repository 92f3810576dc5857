import { PullError } from './error.js';

/** A tar is a sequence of blocks of this size. */
export const TAR_BLOCK_BYTES = 512;

/** The largest extended header or long name. The limit of Go's reader, which other clients use. */
export const MAX_TAR_META_BYTES = 2 ** 20;

/**
 * Offset of the flag in old GNU sparse headers, and in the blocks that extend them, for another
 * block that follows.
 */
export const SPARSE_HEADER_FLAG_AT = 482;
export const SPARSE_EXTENSION_FLAG_AT = 504;

const CHECKSUM_AT = 148;
const CHECKSUM_BYTES = 8;

/** Most digits of the length of a record: those of the largest extended header. */
const MAX_PAX_DIGITS = 7;

const ZERO_BLOCK = Buffer.alloc(TAR_BLOCK_BYTES);

/** Whether the block is one of the two that end an archive. */
export function isZeroBlock(block: Buffer): boolean {
  return block[0] === 0 && block.equals(ZERO_BLOCK);
}

/** Returns the bytes of padding between a content of this size and the next header. */
export function paddingOf(sizeBytes: number): number {
  return (TAR_BLOCK_BYTES - (sizeBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}

/**
 * Whether entries of this type have no content, whatever their size field says (as Go's archive/tar
 * reads them).
 */
export function isHeaderOnly(type: string): boolean {
  return type >= '1' && type <= '6';
}

/**
 * Whether the header is in GNU tar's own format, which has other fields in place of ustar's prefix.
 */
export function isGnuHeader(block: Buffer): boolean {
  return block.toString('latin1', 257, 265) === 'ustar  \0';
}

/** Returns the bytes before the first NUL. */
export function textOf(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/**
 * Checks that the block is a header. @throws PullError `metadata-malformed` if its checksum is
 * wrong
 */
export function verifyHeader(block: Buffer): void {
  if (!hasChecksum(block)) throw malformedTar('a header');
}

/**
 * A checksum as `numberAt` reads it, with an end: by chance one in 6,600 compressed blobs has
 * digits and a blank before other bytes.
 */
const CHECKSUM = /^ *[0-7]+(?:\0| [ \0]*$)/;

/** Whether bytes begin with a header, by its checksum. Any bytes may be passed. */
export function isHeader(bytes: Buffer): boolean {
  if (bytes.length < TAR_BLOCK_BYTES) return false;
  const field = bytes.subarray(CHECKSUM_AT, CHECKSUM_AT + CHECKSUM_BYTES).toString('latin1');
  return CHECKSUM.test(field) && hasChecksum(bytes);
}

function hasChecksum(block: Buffer): boolean {
  // The checksum counts its own field as blanks.
  let sum = CHECKSUM_BYTES * 0x20;
  for (let at = 0; at < CHECKSUM_AT; at += 1) sum += block[at]!;
  for (let at = CHECKSUM_AT + CHECKSUM_BYTES; at < TAR_BLOCK_BYTES; at += 1) sum += block[at]!;
  const stated = numberAt(block, CHECKSUM_AT, CHECKSUM_BYTES);
  return stated === sum || stated === sum - 256 * negativeBytes(block);
}

/** Returns how many bytes outside the checksum some old programs added as negative numbers. */
function negativeBytes(block: Buffer): number {
  let count = 0;
  for (let at = 0; at < TAR_BLOCK_BYTES; at += 1) {
    if (at < CHECKSUM_AT || at >= CHECKSUM_AT + CHECKSUM_BYTES) count += block[at]! >>> 7;
  }
  return count;
}

/**
 * Returns a user or group ID of a header in 32 bits: a larger or negative one wraps, as chown(2)
 * takes it.
 * @throws PullError `metadata-malformed` if it is not a number
 */
export function idAt(block: Buffer, offset: number, length: number): number {
  if ((block[offset]! & 0x80) === 0) return numberAt(block, offset, length);
  return block.readUInt32BE(offset + length - 4);
}

/**
 * Returns the size field of a header in bytes. @throws PullError `metadata-malformed` if it is not
 * a size
 */
export function sizeFieldOf(block: Buffer): number {
  return sizeOf(numberAt(block, 124, 12));
}

/**
 * Returns a number of a header: octal digits between blanks and NULs, or base-256 if the first bit
 * is set (GNU).
 * @throws PullError `metadata-malformed` if it is neither
 */
export function numberAt(block: Buffer, offset: number, length: number): number {
  if ((block[offset]! & 0x80) !== 0) return base256(block.subarray(offset, offset + length));
  const end = offset + length;
  let at = offset;
  while (at < end && isBlank(block[at]!)) at += 1;
  let value = 0;
  // Bytes behind a NUL are ignored; behind a blank only blanks may follow.
  for (; at < end && block[at] !== 0; at += 1) {
    const digit = block[at]! - 0x30;
    if (digit >= 0 && digit <= 7) value = value * 8 + digit;
    else if (allBlank(block, at, end)) return value;
    else throw malformedTar('a number');
  }
  return value;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0;
}

function allBlank(block: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if (!isBlank(block[at]!)) return false;
  return true;
}

function base256(field: Buffer): number {
  const value = BigInt.asIntN(field.length * 8 - 1, BigInt(`0x${field.toString('hex')}`));
  return safe(Number(value));
}

/**
 * The records of a sparse file that are repeated, in this order (GNU tar, format 0.0), and the one
 * record that has them all (0.1).
 */
const SPARSE_OFFSET = 'GNU.sparse.offset';
const SPARSE_LENGTH = 'GNU.sparse.numbytes';
const SPARSE_MAP = 'GNU.sparse.map';

/**
 * Returns the records of a pax extended header (POSIX pax, "pax Extended Header"), with bytes as
 * latin1 so that nothing is lost. The last of repeated records counts; the map of a sparse file,
 * which GNU tar 0.0 states by repeated records, becomes one record.
 * @throws PullError `metadata-malformed` for a malformed record
 */
export function parsePax(body: Buffer): Map<string, string> {
  const text = body.toString('latin1');
  const records = new Map<string, string>();
  const map: string[] = [];
  for (let at = 0; at < text.length; ) {
    let space = at;
    let lengthBytes = 0;
    for (let digit = body[space]! - 0x30; digit >= 0 && digit <= 9; digit = (body[space] ?? 0) - 0x30) {
      lengthBytes = lengthBytes * 10 + digit;
      space += 1;
    }
    const end = at + lengthBytes;
    const isLength = space > at && space <= at + MAX_PAX_DIGITS && body[space] === 0x20;
    if (!isLength || end > text.length || body[end - 1] !== 0x0a) throw malformedTar('a pax record');
    const equals = text.indexOf('=', space);
    if (equals <= space + 1 || equals >= end) throw malformedTar('a pax record');
    const key = text.slice(space + 1, equals);
    const value = text.slice(equals + 1, end - 1);
    if (key === SPARSE_OFFSET || key === SPARSE_LENGTH) {
      if ((key === SPARSE_OFFSET) !== (map.length % 2 === 0)) throw malformedTar('the map of a sparse file');
      map.push(value);
    } else records.set(key, value);
    at = end;
  }
  if (map.length > 0) records.set(SPARSE_MAP, map.join(','));
  return records;
}

/**
 * Returns a decimal number of a pax record. @throws PullError `metadata-malformed` if it is not one
 */
export function integerOf(value: string): number {
  if (!/^-?\d{1,16}$/.test(value)) throw malformedTar('a number');
  return safe(Number(value));
}

/**
 * Returns a user or group ID of a pax record, as `idAt`.
 * @throws PullError `metadata-malformed` if it is not a number of 64 bits
 */
export function idOf(value: string): number {
  if (!/^[+-]?\d{1,19}$/.test(value)) throw malformedTar('a user or group ID');
  return Number(BigInt.asUintN(32, BigInt(value.replace('+', ''))));
}

/** Returns `value` as a size in bytes. @throws PullError `metadata-malformed` if it is negative */
export function sizeOf(value: number): number {
  if (value < 0) throw malformedTar('a size');
  return value;
}

function safe(value: number): number {
  if (!Number.isSafeInteger(value)) throw malformedTar('a number');
  return value;
}

/** Returns the error for a malformed part of a tar. */
export function malformedTar(what: string): PullError {
  return unreadableTar(`${what} in it is malformed`);
}

/** Returns the error for a tar that cannot be read. */
export function unreadableTar(why: string): PullError {
  return new PullError('metadata-malformed', `the tar cannot be read: ${why}`);
}
