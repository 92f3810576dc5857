import { closeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { listNames } from '../files/guarded-directory.js';
import { openFile, readFully, statFile } from '../files/open-file.js';
import { ifExists, systemCode, UnfitFile, wrapFsError } from '../files/storage-error.js';
import { DIGEST_BYTES } from '../format/digest.js';
import { overlapsRun, type Runs } from './extents.js';
import { readBadRuns } from './pack-files.js';
import { indexPath, isPackId, type PackId, packPath, type StorePaths } from './paths.js';

/**
 * The size of every record of a pack's index (docs/store-format.md). With one size, a torn or
 * damaged record does not affect the others. Numbers are little-endian.
 */
export const RECORD_BYTES = 80;

/**
 * Piece: decoded bytes of a blob. Content: a run with its computed digest. Raw: raw bytes of a
 * blob. Stated: a run with a digest from the metadata of a layer, which was not computed.
 */
export const RECORD_TYPES = { piece: 1, content: 2, raw: 3, stated: 4 } as const;
export type RecordType = (typeof RECORD_TYPES)[keyof typeof RECORD_TYPES];

/** Replaces the blob's digest in the record of a piece that turned out not to match the blob. */
export const NO_BLOB = Buffer.alloc(DIGEST_BYTES);

/** Returns whether a record has the digest of its run, computed or stated. */
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

/** The fields of a piece's record. */
export interface PieceFields {
  /**
   * Whether the pack has the blob's raw bytes; then `lengthBytes` is `blobLength` and `tarStart` is
   * 0.
   */
  readonly raw: boolean;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  readonly packOffset: number;
  readonly lengthBytes: number;
  readonly blobStart: number;
  readonly blobLength: number;
  /** Offset of the piece in the layer's tar. */
  readonly tarStart: number;
  /** crc32 of the bytes in the pack. */
  readonly crc32: number;
}

/** A record without its crc32. Records are built and checked here, without allocations. */
const scratch = Buffer.alloc(RECORD_BYTES - TYPE_AT);

function writeNumber(value: number, recordAt: number): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${value} does not fit an index record`);
  writeU64(scratch, recordAt - TYPE_AT, value);
}

/** Writes a safe integer as u64, little-endian. */
export function writeU64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
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

/** Encodes a piece into `target` at `at`. */
export function encodePiece(target: Buffer, at: number, piece: PieceFields): void {
  begin(piece.raw ? RECORD_TYPES.raw : RECORD_TYPES.piece, piece.blobDigest, 0);
  writeNumber(piece.packOffset, PACK_OFFSET_AT);
  writeNumber(piece.lengthBytes, LENGTH_AT);
  writeNumber(piece.blobStart, BLOB_START_AT);
  writeNumber(piece.tarStart, TAR_START_AT);
  scratch.writeUInt32LE(piece.blobLength, BLOB_LENGTH_AT - TYPE_AT);
  scratch.writeUInt32LE(piece.crc32, PIECE_CRC_AT - TYPE_AT);
  finish(target, at);
}

/** Encodes a content, whose digest is in row `row` of `digests`, into `target` at `at`. */
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
  writeNumber(packOffset, PACK_OFFSET_AT);
  writeNumber(lengthBytes, LENGTH_AT);
  finish(target, at);
}

/** Returns a u64, little-endian, which is not a safe integer above 2^53 - 1. */
export function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

/** Returns the 32 bytes of the digest of the record at `at`, in the same memory. */
export function digestOf(bytes: Buffer, at: number): Buffer {
  return bytes.subarray(digestStart(at), digestStart(at) + DIGEST_BYTES);
}

/** Returns the offset of the digest of the record at `at`. */
export function digestStart(at: number): number {
  return at + DIGEST_AT;
}

/** Returns the offset in the pack of the run of the record at `at`. */
export function packOffsetOf(bytes: Buffer, at: number): number {
  return readU64(bytes, at + PACK_OFFSET_AT);
}

/** Returns the length in bytes of the run of the record at `at`. */
export function lengthOf(bytes: Buffer, at: number): number {
  return readU64(bytes, at + LENGTH_AT);
}

/** Decodes the record of a piece at `at`. */
export function pieceOf(bytes: Buffer, at: number): PieceFields {
  return {
    raw: bytes[at + TYPE_AT] === RECORD_TYPES.raw,
    blobDigest: Buffer.from(digestOf(bytes, at)),
    packOffset: packOffsetOf(bytes, at),
    lengthBytes: lengthOf(bytes, at),
    blobStart: readU64(bytes, at + BLOB_START_AT),
    blobLength: bytes.readUInt32LE(at + BLOB_LENGTH_AT),
    tarStart: readU64(bytes, at + TAR_START_AT),
    crc32: bytes.readUInt32LE(at + PIECE_CRC_AT),
  };
}

function isRange(start: number, length: number): boolean {
  return length > 0 && Number.isSafeInteger(start + length);
}

/** Returns whether the crc32 of the record at `at` is right and its numbers are possible. */
function isValid(bytes: Buffer, at: number): boolean {
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
    isRange(readU64(bytes, at + BLOB_START_AT), blobLength) &&
    isRange(readU64(bytes, at + TAR_START_AT), length)
  );
}

function isKnown(type: number): type is RecordType {
  return type >= RECORD_TYPES.piece && type <= RECORD_TYPES.stated;
}

/**
 * Invalid records in a row after which a scan stops: 320 KiB. A crash tears the end of one write
 * and a bad sector has 4 KiB; a longer gap is a hole, or the file is not an index.
 */
export const MAX_BAD_RECORDS = 4096;

/** Whether to check and visit the record at this offset. */
type RecordFilter = (type: RecordType, at: number) => boolean;
type RecordVisitor = (type: RecordType, at: number) => void;

/**
 * Calls `visit(type, at)` for each valid record of `bytes`, in order. Skips invalid records and a
 * truncated one at the end.
 * @param filter called first, also for invalid records: the crc32 costs about 150 ns, and a look-up
 *   needs few of a million records
 * @param badBefore invalid records right before `bytes`
 * @returns invalid records in a row at the end; at MAX_BAD_RECORDS the scan has stopped
 */
export function scanIndex(bytes: Buffer, filter: RecordFilter, visit: RecordVisitor, badBefore = 0): number {
  const end = bytes.length - (bytes.length % RECORD_BYTES);
  let bad = badBefore;
  for (let at = 0; at < end && bad < MAX_BAD_RECORDS; at += RECORD_BYTES) {
    const type = bytes[at + TYPE_AT]!;
    bad += 1;
    if (!isKnown(type)) continue;
    if (filter(type, at)) {
      if (!isValid(bytes, at)) continue;
      visit(type, at);
    }
    bad = 0;
  }
  return bad;
}

/** Complete records read at a time: about 4 MiB. */
const BLOCK_BYTES = 52_428 * RECORD_BYTES;

/**
 * Bytes that one scan reads of all indexes together: 26 million records in about two seconds. A
 * large store has a million. Contents beyond the limit count as absent and are fetched again.
 */
const MAX_INDEX_BYTES = 2 ** 31;

/** A pack with an index. */
export interface IndexedPack {
  readonly id: PackId;
  readonly sealed: boolean;
  readonly sizeBytes: number;
  readonly bad: Runs;
}

/** Lists all packs with an index, sealed ones first. @throws PullError as `storageError` */
export function listIndexedPacks(paths: StorePaths): IndexedPack[] {
  const names = ifExists(`read ${paths.packs}`, () => listNames(paths.packs)) ?? [];
  const listed = [true, false].flatMap((sealed) => {
    const suffix = sealed ? '.idx' : '.idx.open';
    const ids = names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
    return ids.filter(isPackId).map((id) => ({ id, sealed }));
  });
  return listed.flatMap(({ id, sealed }) => {
    const stat = statFile(packPath(paths, id));
    return stat === undefined ? [] : [{ id, sealed, sizeBytes: stat.size, bad: readBadRuns(paths, id) }];
  });
}

/** Returns whether the pack has a run, and none of its bytes is in a bad run. */
export function hasRun(pack: IndexedPack, offset: number, lengthBytes: number): boolean {
  return offset + lengthBytes <= pack.sizeBytes && !overlapsRun(pack.bad, offset, offset + lengthBytes);
}

/** A scan of the indexes of a store, with its buffer and a limit on the bytes read. */
export class IndexScan {
  readonly block: Buffer;
  /** Where `block` begins in the index. */
  blockStart = 0;
  readonly #paths: StorePaths;
  #remainingBytes: number;

  constructor(
    paths: StorePaths,
    block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES),
    maxBytes = MAX_INDEX_BYTES,
  ) {
    this.#paths = paths;
    this.block = block;
    this.#remainingBytes = maxBytes;
  }

  /**
   * Runs `scanIndex` over the index of a pack; `filter` and `visit` get offsets in `block`. Finds
   * an index that was sealed since it was listed; a missing index or an irregular file has no
   * records.
   * @throws PullError as `storageError`
   */
  read(pack: IndexedPack, filter: RecordFilter, visit: RecordVisitor): void {
    const path = indexPath(this.#paths, pack.id, pack.sealed);
    wrapFsError(`read ${path}`, () => {
      const fd = openIndex(this.#paths, pack);
      if (fd === undefined) return;
      try {
        this.#readAll(fd, filter, visit);
      } finally {
        closeSync(fd);
      }
    });
  }

  #readAll(fd: number, filter: RecordFilter, visit: RecordVisitor): void {
    let bad = 0;
    for (let position = 0; bad < MAX_BAD_RECORDS; ) {
      const maxBytes = Math.min(
        this.block.length,
        this.#remainingBytes - (this.#remainingBytes % RECORD_BYTES),
      );
      const room = maxBytes === this.block.length ? this.block : this.block.subarray(0, maxBytes);
      const filled = readFully(fd, room, position);
      this.#remainingBytes -= filled;
      this.blockStart = position;
      position += filled;
      bad = scanIndex(filled === room.length ? room : room.subarray(0, filled), filter, visit, bad);
      if (filled < this.block.length) return;
    }
  }
}

function openIndex(paths: StorePaths, pack: IndexedPack): number | undefined {
  for (const sealed of [pack.sealed, true]) {
    try {
      return openFile(indexPath(paths, pack.id, sealed));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' && !(error instanceof UnfitFile)) throw error;
    }
  }
  return undefined;
}
