import { crc32 } from 'node:zlib';
import { countBefore } from '../format/arrays.js';
import type { PackRun } from './bad-runs.js';
import { MissingBytes, type PackReader } from './pack-reader.js';
import type { PackId } from './paths.js';

/** Bytes read and summed at a time. */
const BLOCK_BYTES = 2 ** 20;
const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);

type Verdict = 'unknown' | 'true' | 'false';

interface Piece {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly crc: number;
  verdict: Verdict;
}

/**
 * Which runs of an unsealed pack can be believed. Its index may have reached the disk before its pieces did (a power cut), so
 * a run counts only if pieces cover it without a hole and the crc32 of each is right. A piece is read once, when it is asked for.
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

  /** Takes down a piece as its record states it. */
  add(offset: number, lengthBytes: number, crc: number): void {
    this.#pieces.push({ offset, lengthBytes, crc, verdict: 'unknown' });
    this.#sorted = false;
  }

  /** Whether the bytes [offset, offset + lengthBytes) of the pack are what was written. @throws PullError as `readInto` */
  covers(offset: number, lengthBytes: number): boolean {
    this.#sort();
    let covered = offset;
    for (let row = this.#lastAtOrBefore(offset); row >= 0 && row < this.#pieces.length; row++) {
      const piece = this.#pieces[row]!;
      if (piece.offset > covered || piece.offset + piece.lengthBytes <= covered) return false;
      if (!this.#isTrue(piece)) return false;
      covered = piece.offset + piece.lengthBytes;
      if (covered >= offset + lengthBytes) return true;
    }
    return false;
  }

  /** The parts of [offset, offset + lengthBytes) that lie in pieces whose crc32 is wrong. @throws PullError as `readInto` */
  corruptParts(offset: number, lengthBytes: number): PackRun[] {
    this.#sort();
    const parts: PackRun[] = [];
    for (let row = Math.max(this.#lastAtOrBefore(offset), 0); row < this.#pieces.length; row++) {
      const piece = this.#pieces[row]!;
      if (piece.offset >= offset + lengthBytes) break;
      const start = Math.max(offset, piece.offset);
      const end = Math.min(offset + lengthBytes, piece.offset + piece.lengthBytes);
      if (start < end && !this.#isTrue(piece)) parts.push({ offset: start, lengthBytes: end - start });
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

  #isTrue(piece: Piece): boolean {
    if (piece.verdict === 'unknown') piece.verdict = this.#sumOf(piece) === piece.crc ? 'true' : 'false';
    return piece.verdict === 'true';
  }

  /** crc32 of the piece's bytes, or undefined if the pack does not have them. */
  #sumOf({ offset, lengthBytes }: Piece): number | undefined {
    let sum = 0;
    try {
      for (let done = 0; done < lengthBytes; done += BLOCK_BYTES) {
        const part = Math.min(BLOCK_BYTES, lengthBytes - done);
        this.#reader.readInto(block, 0, this.#pack, offset + done, part);
        sum = crc32(part === BLOCK_BYTES ? block : block.subarray(0, part), sum);
      }
    } catch (error) {
      if (error instanceof MissingBytes) return undefined;
      throw error;
    }
    return sum;
  }
}
