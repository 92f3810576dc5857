import { constants } from 'node:fs';
import { within } from '../files/guarded-directory.js';
import { openFile } from '../files/open-file.js';
import { closeWritten, ifExists, writeFully } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { PackRun } from './bad-runs.js';
import type { IndexedPack } from './index-files.js';
import { encodeContent, encodePiece, NO_BLOB, type PieceFields, RECORD_BYTES } from './index-format.js';
import { indexPath, type StorePaths } from './paths.js';

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
  pieceOfNoBlob(position: number, piece: PieceFields): void {
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
