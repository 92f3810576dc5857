import { crc32 } from 'node:zlib';
import { DIGEST_BYTES } from '../format/digest.js';

/**
 * The records of a pack's index (docs/store-format.md). All have one size, so that a torn or damaged one costs itself
 * and nothing else. Numbers are little-endian.
 */
export const RECORD_BYTES = 80;

/**
 * A piece: decoded bytes of a blob. A content: the run of a digest that was computed from it. A raw piece: bytes of a blob
 * as they are. Stated: the run that the metadata of a layer states this digest for; nobody has computed it.
 */
export const RECORD_TYPES = { piece: 1, content: 2, raw: 3, stated: 4 } as const;
export type RecordType = (typeof RECORD_TYPES)[keyof typeof RECORD_TYPES];

/** Stands in the record of a piece for the digest of its blob, where the piece proved not to be what the blob has there. */
export const NO_BLOB = Buffer.alloc(DIGEST_BYTES);

/** Whether a record is of the run of a digest, computed or stated. */
export function isContent(type: RecordType): boolean {
  return type === RECORD_TYPES.content || type === RECORD_TYPES.stated;
}

const TYPE_AT = 4;
const DIGEST_AT = 8;
const PACK_OFFSET_AT = 40;
const LENGTH_AT = 48;
const BLOB_START_AT = 56;
const TAR_START_AT = 64;
const BLOB_LENGTH_AT = 72;
const PIECE_CRC_AT = 76;

/** A piece as its record states it. */
export interface PieceFields {
  /** Whether the pack holds the blob's own bytes; then `lengthBytes` is `blobLength` and `tarStart` is 0. */
  readonly raw: boolean;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  readonly packOffset: number;
  readonly lengthBytes: number;
  readonly blobStart: number;
  readonly blobLength: number;
  /** Where the piece's first byte stands in the layer's tar. */
  readonly tarStart: number;
  /** crc32 of the bytes in the pack. */
  readonly crc32: number;
}

/** All but the record's own crc32: records are built and checked here, so that none of them allocates. */
const scratch = Buffer.alloc(RECORD_BYTES - TYPE_AT);

function writeU64(value: number, recordAt: number): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${value} does not fit an index record`);
  scratch.writeUInt32LE(value % 2 ** 32, recordAt - TYPE_AT);
  scratch.writeUInt32LE(Math.floor(value / 2 ** 32), recordAt - TYPE_AT + 4);
}

function finish(target: Buffer, at: number): void {
  target.writeUInt32LE(crc32(scratch), at);
  scratch.copy(target, at + TYPE_AT);
}

function begin(type: RecordType, digests: Uint8Array, row: number): void {
  scratch.fill(0);
  scratch[0] = type;
  const start = row * DIGEST_BYTES;
  for (let i = 0; i < DIGEST_BYTES; i++) scratch[DIGEST_AT - TYPE_AT + i] = digests[start + i]!;
}

/** Encodes a piece into the RECORD_BYTES bytes of `target` at `at`. */
export function encodePiece(target: Buffer, at: number, piece: PieceFields): void {
  begin(piece.raw ? RECORD_TYPES.raw : RECORD_TYPES.piece, piece.blobDigest, 0);
  writeU64(piece.packOffset, PACK_OFFSET_AT);
  writeU64(piece.lengthBytes, LENGTH_AT);
  writeU64(piece.blobStart, BLOB_START_AT);
  writeU64(piece.tarStart, TAR_START_AT);
  scratch.writeUInt32LE(piece.blobLength, BLOB_LENGTH_AT - TYPE_AT);
  scratch.writeUInt32LE(piece.crc32, PIECE_CRC_AT - TYPE_AT);
  finish(target, at);
}

/** Encodes the run of the digest in row `row` of `digests`, computed unless `type` says stated, into the RECORD_BYTES bytes of `target` at `at`. */
export function encodeContent(
  target: Buffer,
  at: number,
  digests: Uint8Array,
  row: number,
  packOffset: number,
  lengthBytes: number,
  type: RecordType = RECORD_TYPES.content,
): void {
  begin(type, digests, row);
  writeU64(packOffset, PACK_OFFSET_AT);
  writeU64(lengthBytes, LENGTH_AT);
  finish(target, at);
}

/** Two 32-bit halves as one number; above 2^53 it is no safe integer, which `isSound` turns away. */
function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

/** Where the digest of the record at `at` starts in the same buffer. */
export function digestStart(at: number): number {
  return at + DIGEST_AT;
}

/** Offset in the pack of the run that the record at `at` states. */
export function packOffsetOf(bytes: Buffer, at: number): number {
  return u64(bytes, at + PACK_OFFSET_AT);
}

/** Length in bytes of the run that the record at `at` states. */
export function lengthOf(bytes: Buffer, at: number): number {
  return u64(bytes, at + LENGTH_AT);
}

/** The piece that the record at `at` states. */
export function pieceOf(bytes: Buffer, at: number): PieceFields {
  return {
    raw: bytes[at + TYPE_AT] === RECORD_TYPES.raw,
    blobDigest: Buffer.from(bytes.subarray(at + DIGEST_AT, at + DIGEST_AT + DIGEST_BYTES)),
    packOffset: packOffsetOf(bytes, at),
    lengthBytes: lengthOf(bytes, at),
    blobStart: u64(bytes, at + BLOB_START_AT),
    blobLength: bytes.readUInt32LE(at + BLOB_LENGTH_AT),
    tarStart: u64(bytes, at + TAR_START_AT),
    crc32: bytes.readUInt32LE(at + PIECE_CRC_AT),
  };
}

function isRange(start: number, length: number): boolean {
  return length > 0 && Number.isSafeInteger(start + length);
}

/** Whether the record at `at` is what was written: its crc32 is right and its numbers are possible. */
function isSound(bytes: Buffer, at: number): boolean {
  bytes.copy(scratch, 0, at + TYPE_AT, at + RECORD_BYTES);
  if (crc32(scratch) !== bytes.readUInt32LE(at)) return false;
  if (bytes[at + 5] !== 0 || bytes[at + 6] !== 0 || bytes[at + 7] !== 0) return false;
  const length = lengthOf(bytes, at);
  if (!isRange(packOffsetOf(bytes, at), length)) return false;
  const type = bytes[at + TYPE_AT]!;
  if (type === RECORD_TYPES.content || type === RECORD_TYPES.stated) return true;
  const blobLength = bytes.readUInt32LE(at + BLOB_LENGTH_AT);
  if (type === RECORD_TYPES.raw && blobLength !== length) return false;
  return (
    isRange(u64(bytes, at + BLOB_START_AT), blobLength) && isRange(u64(bytes, at + TAR_START_AT), length)
  );
}

function isKnown(type: number): type is RecordType {
  return type >= RECORD_TYPES.piece && type <= RECORD_TYPES.stated;
}

/**
 * Bad records in a row after which nothing more of an index is read: 320 KiB. What a crash tears is the end of a write, and a bad sector
 * has 4 KiB; a file with more than that between its records is none of ours, or a hole.
 */
export const MAX_BAD_RECORDS = 4096;

/**
 * Calls `visit(type, at)` for the records of `bytes` that are sound, in order; a bad one is skipped, a cut one at the
 * end too. `wants(type, at)` is asked first, of records that may still be bad: the crc32 costs about 150 ns, and a
 * look-up wants few of a million records. `badBefore`: bad records right before these.
 * @returns bad records in a row at the end; at MAX_BAD_RECORDS it has stopped
 */
export function scanIndex(
  bytes: Buffer,
  wants: (type: RecordType, at: number) => boolean,
  visit: (type: RecordType, at: number) => void,
  badBefore = 0,
): number {
  const end = bytes.length - (bytes.length % RECORD_BYTES);
  let bad = badBefore;
  for (let at = 0; at < end && bad < MAX_BAD_RECORDS; at += RECORD_BYTES) {
    const type = bytes[at + TYPE_AT]!;
    bad += 1;
    if (!isKnown(type)) continue;
    if (wants(type, at)) {
      if (!isSound(bytes, at)) continue;
      visit(type, at);
    }
    bad = 0;
  }
  return bad;
}
