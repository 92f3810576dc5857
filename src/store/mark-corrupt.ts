import { constants } from 'node:fs';
import { withGuarded } from '../files/guarded-directory.js';
import { openFile } from '../files/open-file.js';
import { closeWritten, ifExists, writeFully } from '../files/storage-error.js';
import { DIGEST_BYTES } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { markBad, type PackRun } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { type IndexedPack, IndexScan, listIndexedPacks } from './index-files.js';
import {
  digestStart,
  encodeContent,
  encodePiece,
  lengthOf,
  NO_BLOB,
  type PieceFields,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
} from './index-format.js';
import { digestOfExtents, type PackReader } from './pack-reader.js';
import { indexPath, type StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';
import { neededRuns, overlapsRun, type Runs } from './runs.js';

/**
 * Overwrites wrong records in the index of a pack whose bytes are intact. The bytes stay, since
 * layers may use them. A reader that meets a half-written record skips it for its crc32. If the
 * index cannot be written, the record stays and costs the next pull a failed DiffID.
 */
export class IndexCorrection {
  readonly #paths: StorePaths;
  readonly #pack: IndexedPack;
  readonly #record = Buffer.alloc(RECORD_BYTES);
  #file: { readonly fd: number; readonly path: string } | undefined;
  #isOver = false;

  constructor(paths: StorePaths, pack: IndexedPack) {
    this.#paths = paths;
    this.#pack = pack;
  }

  /** Replaces the record at `position` by one with the computed digest of its run. */
  content(position: number, digest: Uint8Array, { offset, lengthBytes }: PackRun): void {
    encodeContent(this.#record, 0, digest, 0, offset, lengthBytes);
    this.#write(position);
  }

  /**
   * Removes the blob's digest from a piece that does not match the blob. Its crc32 still detects
   * corruption.
   */
  detachPiece(position: number, piece: PieceFields): void {
    encodePiece(this.#record, 0, { ...piece, blobDigest: NO_BLOB });
    this.#write(position);
  }

  close(): void {
    const file = this.#file;
    this.#isOver = true;
    this.#file = undefined;
    if (file !== undefined) this.#attempt(() => closeWritten(file.fd, file.path));
  }

  #write(position: number): void {
    if (this.#isOver) return;
    this.#attempt(() => {
      this.#file ??= openToWrite(this.#paths, this.#pack);
      if (this.#file === undefined) this.#isOver = true;
      else writeFully(this.#file.fd, this.#file.path, this.#record, position);
    });
  }

  /** Stops correcting after the first error. */
  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      this.#isOver = true;
    }
  }
}

/**
 * Opens the index for writing, also one that was sealed meanwhile. Returns undefined if it is gone.
 */
function openToWrite(
  paths: StorePaths,
  { id, sealed }: IndexedPack,
): { fd: number; path: string } | undefined {
  for (const path of new Set([indexPath(paths, id, sealed), indexPath(paths, id, true)])) {
    const open = () => withGuarded(path, (at) => openFile(path, constants.O_WRONLY, at));
    const fd = ifExists(`write ${path}`, open);
    if (fd !== undefined) return { fd, path };
  }
  return undefined;
}

/**
 * Marks the parts of these extents as bad that lie in pieces with a wrong crc32. That bytes do not
 * match what a layer needs is no reason to mark them: the layer's metadata may be wrong, and other
 * layers may use the bytes. The other bytes of such a piece stay usable. In intact pieces, corrects
 * wrong records: stated digests, and the blob of pieces of `blobDigest`.
 * @throws PullError as `storageError`
 */
export function markCorrupt(
  paths: StorePaths,
  reader: PackReader,
  suspects: ExtentList,
  blobDigest?: Uint8Array,
): void {
  const byPack = neededRuns([suspects]);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  for (const pack of listIndexedPacks(paths)) {
    const runs = byPack.get(pack.id);
    if (runs === undefined) continue;
    const proof = new PieceProof(reader, pack.id);
    indexes.read(
      pack,
      (type) => type === RECORD_TYPES.piece,
      (_, at) => {
        const piece = pieceOf(block, at);
        proof.add(piece.packOffset, piece.lengthBytes, piece.crc32);
      },
    );
    const corrupt = [];
    for (let i = 0; i < runs.length; i += 2)
      corrupt.push(...proof.corruptParts(runs[i]!, runs[i + 1]! - runs[i]!));
    if (corrupt.length > 0) markBad(paths, pack.id, corrupt);
    correctRecords(paths, reader, indexes, { pack, runs, proof }, blobDigest);
  }
}

/** Corrects wrong records of intact bytes that overlap these runs of a pack. */
function correctRecords(
  paths: StorePaths,
  reader: PackReader,
  indexes: IndexScan,
  { pack, runs, proof }: { pack: IndexedPack; runs: Runs; proof: PieceProof },
  blobDigest: Uint8Array | undefined,
): void {
  const { block } = indexes;
  const correction = new IndexCorrection(paths, pack);
  const digestIn = (at: number) => block.subarray(digestStart(at), digestStart(at) + DIGEST_BYTES);
  const isOfBlob = (at: number) => blobDigest !== undefined && digestIn(at).equals(blobDigest);
  indexes.read(
    pack,
    (type, at) => {
      const offset = packOffsetOf(block, at);
      const isSuspect = type === RECORD_TYPES.stated || (type === RECORD_TYPES.piece && isOfBlob(at));
      return isSuspect && overlapsRun(runs, offset, offset + lengthOf(block, at));
    },
    (type, at) => {
      const position = indexes.blockStart + at;
      const offset = packOffsetOf(block, at);
      const lengthBytes = lengthOf(block, at);
      if (!proof.covers(offset, lengthBytes)) return;
      if (type === RECORD_TYPES.piece) {
        correction.detachPiece(position, pieceOf(block, at));
        return;
      }
      const extents = new ExtentList();
      extents.push(pack.id, offset, lengthBytes);
      const digest = digestOfExtents(reader, extents);
      if (digest !== undefined && !digest.equals(digestIn(at)))
        correction.content(position, digest, { offset, lengthBytes });
    },
  );
  correction.close();
}
