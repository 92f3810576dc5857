import { closeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { retryIfFull, SpaceGuard } from '../files/disk-space.js';
import { withGuarded } from '../files/guarded-directory.js';
import { NEW_FILE, openFile } from '../files/open-file.js';
import { CALL_BYTES, closeWritten, wrapFsError, writeFully } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import { threadClock } from '../pool/stage-clock.js';
import { encodeContent, encodePiece, type PieceFields, RECORD_BYTES, RECORD_TYPES } from './pack-index.js';
import { indexPath, newPackId, type PackId, packPath, type StorePaths } from './paths.js';

/** A part of a pack that is reserved for one span, so that its bytes are one contiguous run. */
export interface Region {
  readonly pack: PackId;
  readonly start: number;
  readonly end: number;
}

/**
 * Runs with their digests. Each lies within one region and ends in the piece that it is written
 * with, if any.
 */
export interface ContentRows {
  readonly count: number;
  /** DIGEST_BYTES bytes a row, computed from the runs unless `stated`. */
  readonly digests: Uint8Array;
  /**
   * The digests are from the metadata of a layer. The DiffID proves the bytes, but not these
   * digests.
   */
  readonly stated?: boolean;
  readonly packOffset: Float64Array;
  readonly lengthBytes: Float64Array;
}

/** Raw bytes of a blob that the pack already has. */
export type BlobPiece = Pick<
  PieceFields,
  'blobDigest' | 'packOffset' | 'lengthBytes' | 'blobStart' | 'crc32'
>;

/** A piece with its bytes and contents. */
export interface PieceToWrite extends Omit<PieceFields, 'crc32' | 'lengthBytes'> {
  readonly bytes: Uint8Array;
  readonly contents: ContentRows;
}

interface OpenPack {
  readonly id: PackId;
  readonly pack: { readonly fd: number; readonly path: string };
  readonly index: { readonly fd: number; readonly path: string };
  /**
   * Ends of the reserved part of the pack and the written part of the index; file sizes are never
   * read.
   */
  packEnd: number;
  indexEnd: number;
}

/**
 * Writes packs, one at a time for each worker. Invariants: it opens only files that it creates,
 * writes no byte twice, except after the disk was full, and writes a record after the bytes that it
 * states. After a failed write it writes nothing more to the pack, and the next reservation opens a
 * new one.
 */
export class PackWriter {
  readonly #paths: StorePaths;
  readonly #space: SpaceGuard;
  #open: OpenPack | undefined;
  /** The errors of abandoned packs: writes to their other regions fail with the same error. */
  readonly #failures = new Map<PackId, unknown>();
  /** Buffer for the records of one piece; about 160 KB for 1 MiB of one-byte files. */
  #records = Buffer.allocUnsafeSlow(64 * RECORD_BYTES);

  constructor(paths: StorePaths) {
    this.#paths = paths;
    this.#space = new SpaceGuard(paths.packs);
  }

  /** The current pack; undefined before the first reservation and after a failure or `close`. */
  get id(): PackId | undefined {
    return this.#open?.id;
  }

  /**
   * Reserves `lengthBytes` bytes of the pack. They take no disk space until they are written: an
   * interrupted span leaves a hole.
   * @throws PullError as `storageError`, if a new pack cannot be created
   */
  reserve(lengthBytes: number): Region {
    if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0)
      throw new RangeError(`cannot reserve ${lengthBytes} bytes`);
    this.#open ??= retryIfFull(() => createPack(this.#paths));
    const start = this.#open.packEnd;
    this.#open.packEnd += lengthBytes;
    return { pack: this.#open.id, start, end: start + lengthBytes };
  }

  /**
   * Writes a piece, then in one write its record and those of its contents.
   * @throws PullError `store-full`, `store-denied` or `store-broken`
   */
  writePiece(region: Region, piece: PieceToWrite): void {
    const started = threadClock.start();
    const { bytes, contents } = piece;
    const records = this.#recordsOf(contents.count + 1);
    encodePiece(records, 0, { ...piece, lengthBytes: bytes.length, crc32: crcOf(bytes) });
    encodeContents(records, 1, contents, { start: region.start, end: piece.packOffset + bytes.length });
    this.#write(region, bytes, piece.packOffset);
    this.writeRecords(region, records);
    threadClock.end('write', started, bytes.length);
  }

  /**
   * Writes bytes without records: inline bytes of a layer, or bytes for `recordBlobPart` or
   * `recordContents`.
   * @throws PullError as `writePiece`
   */
  writeUnindexed(region: Region, bytes: Uint8Array, packOffset: number): void {
    const started = threadClock.start();
    this.#write(region, bytes, packOffset);
    threadClock.end('write', started, bytes.length);
  }

  /**
   * Writes the record of blob bytes that `writeUnindexed` wrote to this region.
   * @throws PullError as `writePiece`
   */
  recordBlobPart(region: Region, piece: BlobPiece): void {
    const { packOffset, lengthBytes } = piece;
    if (packOffset < region.start || packOffset + lengthBytes > region.end)
      throw new RangeError('a piece lies outside its region');
    const started = threadClock.start();
    const records = this.#recordsOf(1);
    encodePiece(records, 0, { ...piece, raw: true, blobLength: lengthBytes, tarStart: 0 });
    this.writeRecords(region, records);
    threadClock.end('write', started, 0);
  }

  /**
   * Writes the records of contents that `writeUnindexed` wrote to this region.
   * @throws PullError as `writePiece`
   */
  recordContents(region: Region, contents: ContentRows): void {
    if (contents.count === 0) return;
    const started = threadClock.start();
    const records = this.#recordsOf(contents.count);
    encodeContents(records, 0, contents, region);
    this.writeRecords(region, records);
    threadClock.end('write', started, 0);
  }

  /**
   * Appends records to the index, as `encodePiece` and `encodeContent` make them.
   * @throws PullError as `writePiece`
   */
  writeRecords(region: Region, records: Uint8Array): void {
    this.#requireOpen(region);
    this.#attempt((open) => {
      writeFully(open.index.fd, open.index.path, records, open.indexEnd);
      open.indexEnd += records.length;
    });
  }

  /**
   * Closes the pack, which is sealed once its layers are published. The next reservation opens a
   * new one.
   */
  close(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open !== undefined) closePack(open);
  }

  #write(region: Region, bytes: Uint8Array, packOffset: number): void {
    if (packOffset < region.start || packOffset + bytes.length > region.end) {
      throw new RangeError('a piece lies outside its region');
    }
    this.#requireOpen(region);
    this.#attempt((open) => {
      this.#space.use(bytes.length);
      writeFully(open.pack.fd, open.pack.path, bytes, packOffset);
    });
  }

  #requireOpen(region: Region): void {
    if (this.#open?.id === region.pack) return;
    if (this.#failures.has(region.pack)) throw this.#failures.get(region.pack);
    throw new PullError('store-broken', `the pack ${region.pack} is closed`, {
      hint: 'Pull again. Bytes fetched so far are reused.',
    });
  }

  /** Returns a buffer for `count` records, valid until the next call. */
  #recordsOf(count: number): Buffer {
    const length = count * RECORD_BYTES;
    if (this.#records.length < length) this.#records = Buffer.allocUnsafeSlow(length);
    return this.#records.subarray(0, length);
  }

  /**
   * Runs `action`, which must be repeatable. After an error the contents of the file are unknown,
   * so the pack is abandoned.
   */
  #attempt(action: (open: OpenPack) => void): void {
    const open = this.#open!;
    try {
      retryIfFull(() => action(open));
    } catch (error) {
      this.#open = undefined;
      this.#failures.set(open.id, error);
      try {
        closePack(open);
      } catch {
        // Report the first error.
      }
      throw error;
    }
  }
}

/**
 * Encodes contents as records from row `first` on.
 * @throws RangeError for one outside of `bounds`
 */
function encodeContents(
  records: Buffer,
  first: number,
  contents: ContentRows,
  bounds: { readonly start: number; readonly end: number },
): void {
  const type = contents.stated === true ? RECORD_TYPES.stated : RECORD_TYPES.content;
  for (let i = 0; i < contents.count; i++) {
    const start = contents.packOffset[i]!;
    const lengthBytes = contents.lengthBytes[i]!;
    if (start < bounds.start || start + lengthBytes > bounds.end)
      throw new RangeError('a content lies outside its region');
    encodeContent(records, (first + i) * RECORD_BYTES, contents.digests, i, start, lengthBytes, type);
  }
}

function createPack(paths: StorePaths): OpenPack {
  const id = newPackId();
  const create = (path: string) => ({
    path,
    fd: wrapFsError(`create ${path}`, () => withGuarded(path, (at) => openFile(path, NEW_FILE, at))),
  });
  const pack = create(packPath(paths, id));
  try {
    return { id, pack, index: create(indexPath(paths, id, false)), packEnd: 0, indexEnd: 0 };
  } catch (error) {
    closeSync(pack.fd);
    throw error;
  }
}

function closePack(open: OpenPack): void {
  try {
    closeWritten(open.pack.fd, open.pack.path);
  } finally {
    closeWritten(open.index.fd, open.index.path);
  }
}

/** Returns the crc32 of `bytes`, computed in parts of bounded size. */
function crcOf(bytes: Uint8Array): number {
  let value = 0;
  for (let at = 0; at < bytes.length; at += CALL_BYTES)
    value = crc32(bytes.subarray(at, at + CALL_BYTES), value);
  return value;
}
