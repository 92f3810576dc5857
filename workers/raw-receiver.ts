import { crc32 } from 'node:zlib';
import type { PackWriter, Region } from '../src/store/pack-writer.js';

/** Bytes of a raw piece. What has no record is lost when the process is killed: up to so much for each connection. */
const PIECE_BYTES = 2 ** 20;

/** Bytes that have waited so long get their record, however few: a slow link must not lose what it received. */
const WAIT_MS = 500;

interface Target {
  readonly writer: PackWriter;
  readonly region: Region;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  /** Where in the blob the region begins. */
  readonly blobStart: number;
}

/** Writes a range of a blob as it comes, and notes in the index what is there, piece by piece. */
export class RawReceiver {
  readonly #target: Target;
  /** Bytes written, and those of them that have a record. */
  #written = 0;
  #noted = 0;
  /** Of what is written and not noted. */
  #crc = 0;
  #waitingSinceMs = 0;
  #failure: unknown;

  constructor(target: Target) {
    this.#target = target;
  }

  /** The next bytes. @throws PullError as PackWriter */
  readonly take = (chunk: Buffer): void => {
    if (this.#failure !== undefined) throw this.#failure;
    const { writer, region } = this.#target;
    if (this.#written === this.#noted) this.#waitingSinceMs = performance.now();
    writer.writePlain(region, chunk, region.start + this.#written);
    this.#crc = crc32(chunk, this.#crc);
    this.#written += chunk.length;
    if (this.#written - this.#noted >= PIECE_BYTES) this.note();
  };

  /** Notes what has waited too long; a failure comes with the next bytes, or at the end. */
  tick(now: number): void {
    if (this.#written === this.#noted || now - this.#waitingSinceMs < WAIT_MS) return;
    try {
      this.note();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Notes all that is written. @throws PullError as PackWriter */
  note(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written === this.#noted) return;
    const { writer, region, blobDigest, blobStart } = this.#target;
    writer.noteRaw(region, {
      blobDigest,
      packOffset: region.start + this.#noted,
      lengthBytes: this.#written - this.#noted,
      blobStart: blobStart + this.#noted,
      crc32: this.#crc,
    });
    this.#noted = this.#written;
    this.#crc = 0;
  }
}
