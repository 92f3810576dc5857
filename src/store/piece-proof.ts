import { crc32 } from 'node:zlib';
import { countBefore } from '../format/arrays.js';
import type { PackRun } from './pack-files.js';
import { ifMissing, type PackReader } from './pack-reader.js';
import type { PackId } from './paths.js';

/** Bytes read and checked at a time. */
const BLOCK_BYTES = 2 ** 20;
const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);

interface Piece {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly crc: number;
  /** Whether the crc32 is right; undefined until the piece is read. */
  isIntact: boolean | undefined;
}

/**
 * Checks runs of a pack by the crc32 of its pieces. After a power cut an unsealed index may state
 * bytes that never reached the disk, so a run counts only if intact pieces cover it without a gap.
 * Each piece is read at most once, when it is first needed.
 */
export class PieceProof {
  readonly #reader: PackReader;
  readonly #pack: PackId;
  #pieces: Piece[] = [];
  #sorted = true;

  constructor(reader: PackReader, pack: PackId) {
    this.#reader = reader;
    this.#pack = pack;
  }

  /** Adds a piece from its record. */
  add(offset: number, lengthBytes: number, crc: number): void {
    this.#pieces.push({ offset, lengthBytes, crc, isIntact: undefined });
    this.#sorted = false;
  }

  /**
   * Returns whether intact pieces cover [offset, offset + lengthBytes).
   * @throws PullError as `readInto`
   */
  covers(offset: number, lengthBytes: number): boolean {
    this.#sort();
    let covered = offset;
    for (let row = this.#lastAtOrBefore(offset); row >= 0 && row < this.#pieces.length; row++) {
      const piece = this.#pieces[row]!;
      if (piece.offset > covered || piece.offset + piece.lengthBytes <= covered) return false;
      if (!this.#isIntact(piece)) return false;
      covered = piece.offset + piece.lengthBytes;
      if (covered >= offset + lengthBytes) return true;
    }
    return false;
  }

  /**
   * Returns the parts of [offset, offset + lengthBytes) in pieces with a wrong crc32.
   * @throws PullError as `readInto`
   */
  corruptParts(offset: number, lengthBytes: number): PackRun[] {
    this.#sort();
    const parts: PackRun[] = [];
    for (let row = Math.max(this.#lastAtOrBefore(offset), 0); row < this.#pieces.length; row++) {
      const piece = this.#pieces[row]!;
      if (piece.offset >= offset + lengthBytes) break;
      const start = Math.max(offset, piece.offset);
      const end = Math.min(offset + lengthBytes, piece.offset + piece.lengthBytes);
      if (start < end && !this.#isIntact(piece)) parts.push({ offset: start, lengthBytes: end - start });
    }
    return parts;
  }

  #sort(): void {
    if (!this.#sorted) this.#pieces.sort((a, b) => a.offset - b.offset);
    this.#sorted = true;
  }

  #lastAtOrBefore(offset: number): number {
    return countBefore(this.#pieces, (piece) => piece.offset <= offset) - 1;
  }

  #isIntact(piece: Piece): boolean {
    piece.isIntact ??= this.#crcOf(piece) === piece.crc;
    return piece.isIntact;
  }

  /** Returns the crc32 of the piece's bytes, or undefined if the pack does not have them. */
  #crcOf({ offset, lengthBytes }: Piece): number | undefined {
    let crc = 0;
    try {
      for (let done = 0; done < lengthBytes; done += BLOCK_BYTES) {
        const part = Math.min(BLOCK_BYTES, lengthBytes - done);
        this.#reader.readInto(block, 0, this.#pack, offset + done, part);
        crc = crc32(part === BLOCK_BYTES ? block : block.subarray(0, part), crc);
      }
    } catch (error) {
      return ifMissing(error, undefined);
    }
    return crc;
  }
}
