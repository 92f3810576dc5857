import { constants } from 'node:fs';
import { within } from '../files/guarded-directory.js';
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
 * Overwrites records of one pack's index that are not true although the pack's bytes are as they were written, so that nobody
 * believes them again. The bytes stay: layers may be made of them. A record that is written while it is read fails its crc32, and is
 * skipped. Where nothing can be written the record stays, and costs the next pull that believes it what it cost this one.
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

  /** The record at `position` gets the digest that was computed from its run. */
  content(position: number, digest: Uint8Array, { offset, lengthBytes }: PackRun): void {
    encodeContent(this.#record, 0, digest, 0, offset, lengthBytes);
    this.#write(position);
  }

  /** The record at `position` is of a piece that is not what its blob has there. Its crc32 still tells rot. */
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

  /** What the disk refuses is left as it is, as the class says. */
  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      this.#isOver = true;
    }
  }
}

/** The index for writing; one that was sealed meanwhile is found by its new name, one that is gone is undefined. */
function openToWrite(
  paths: StorePaths,
  { id, sealed }: IndexedPack,
): { fd: number; path: string } | undefined {
  for (const path of new Set([indexPath(paths, id, sealed), indexPath(paths, id, true)])) {
    const open = () => within(path, (at) => openFile(path, constants.O_WRONLY, at));
    const fd = ifExists(`write ${path}`, open);
    if (fd !== undefined) return { fd, path };
  }
  return undefined;
}

/**
 * Marks these extents as bad as far as they lie in pieces whose bytes fail their own record. That they are not what
 * somebody wanted is no reason: the wish may be the lie, and other layers may be made of the same bytes. The rest of
 * such a piece stays: what it holds of proven contents is right. Of pieces that are right, the records that lied are
 * corrected: digests that metadata stated, and, of the pieces of `blobDigest`, that they are what that blob has there.
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
    const rotten = [];
    for (let i = 0; i < runs.length; i += 2)
      rotten.push(...proof.corruptParts(runs[i]!, runs[i + 1]! - runs[i]!));
    if (rotten.length > 0) markBad(paths, pack.id, rotten);
    correctRecords(paths, reader, indexes, { pack, runs, proof }, blobDigest);
  }
}

/** Corrects the records of one pack that touch these runs and are not true of bytes that are as they were written. */
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
      const isAsked = type === RECORD_TYPES.stated || (type === RECORD_TYPES.piece && isOfBlob(at));
      return isAsked && overlapsRun(runs, offset, offset + lengthOf(block, at));
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
