import { crc32 } from 'node:zlib';
import type { PackWriter, Region } from '../../src/store/pack-writer.js';

/**
 * Bytes between checkpoints. When the process is killed, up to this much is lost for each
 * connection.
 */
const PIECE_BYTES = 2 ** 20;

/**
 * After this time there is a checkpoint, however few the bytes: a slow link must not lose what it
 * received.
 */
const WAIT_MS = 500;

/** The target of a range; positions count from its start. */
interface CheckpointedFile {
  /** @throws PullError as `storageError` */
  write(chunk: Buffer, position: number): void;
  /** Records that these bytes are written. @throws PullError as `storageError` */
  note(start: number, end: number): void;
}

/**
 * Writes a range of a blob as it is received, and records which of its bytes are written, piece by
 * piece.
 */
export class CheckpointedWriter {
  readonly #target: CheckpointedFile;
  /** Bytes written, and how many of them are recorded. */
  #written = 0;
  #noted = 0;
  #waitingSinceMs = 0;
  #failure: unknown;

  constructor(target: CheckpointedFile) {
    this.#target = target;
  }

  /** Writes the next bytes. @throws PullError as the target */
  readonly write = (chunk: Buffer): void => {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written - this.#noted + chunk.length > PIECE_BYTES) this.note();
    if (this.#written === this.#noted) this.#waitingSinceMs = performance.now();
    this.#target.write(chunk, this.#written);
    this.#written += chunk.length;
  };

  /** Records what has waited too long. The next `write` or `note` throws its error. */
  tick(now: number): void {
    if (this.#written === this.#noted || now - this.#waitingSinceMs < WAIT_MS) return;
    try {
      this.note();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Records all that is written. @throws PullError as the target */
  note(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written === this.#noted) return;
    this.#target.note(this.#noted, this.#written);
    this.#noted = this.#written;
  }
}

interface Target {
  readonly writer: PackWriter;
  readonly region: Region;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  /** Blob offset of the region. */
  readonly blobStart: number;
}

/**
 * Returns a writer for a range of a blob in a region of a pack, which adds an index record for each
 * piece.
 */
export function blobReceiver({ writer, region, blobDigest, blobStart }: Target): CheckpointedWriter {
  /** The crc32 of the bytes that are written and not recorded. */
  let crc = 0;
  return new CheckpointedWriter({
    write(chunk, position) {
      writer.writeUnindexed(region, chunk, region.start + position);
      crc = crc32(chunk, crc);
    },
    note(start, end) {
      writer.recordBlobPart(region, {
        blobDigest,
        packOffset: region.start + start,
        lengthBytes: end - start,
        blobStart: blobStart + start,
        crc32: crc,
      });
      crc = 0;
    },
  });
}
