import { createHash } from 'node:crypto';
import { compress } from '@mongodb-js/zstd';
import { withRoom } from '../format/arrays.js';
import { type Digest, digestOfBytes } from '../format/digest.js';

/** A written layer, with the annotations for its descriptor. */
export interface WrittenLayer {
  readonly diffId: Digest;
  /** Length of the tar that the blob decodes to. */
  readonly tarBytes: number;
  readonly annotations: Readonly<Record<string, string>>;
}

/**
 * Writes a tar as the blob of a layer. The pieces of the tar must not change afterwards;
 * `onProgress` gets the bytes of each piece.
 */
export type LayerWriter = (
  tar: Iterable<Buffer>,
  write: (bytes: Buffer) => void,
  onProgress: (doneBytes: number) => void,
) => Promise<WrittenLayer>;

/** Hashes and counts the bytes of a tar. */
export class TarMeter {
  readonly #hash = createHash('sha256');
  tarBytes = 0;

  add(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.tarBytes += bytes.length;
  }

  /** Returns the digest of all bytes; to be called once. */
  diffId(): Digest {
    return digestOfBytes(this.#hash.digest());
  }
}

/** Short strings are joined up to this length before they are encoded. */
const PIECE_CHARS = 2 ** 20;

/** UTF-8 needs at most three bytes for each UTF-16 code unit. */
const MAX_BYTES_PER_CHAR = 3;

/**
 * A long text built from many short ones, encoded in one growing buffer: the tar-split of 60,000
 * files is 150 MB, and joining a list of pieces would need it twice.
 */
export class TextSpool {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  #text = '';

  add(text: string): void {
    this.#text += text;
    if (this.#text.length >= PIECE_CHARS) this.#flush();
  }

  /** Returns the complete text as UTF-8. */
  toBuffer(): Buffer {
    this.#flush();
    return this.#bytes.subarray(0, this.#length);
  }

  #flush(): void {
    const needed = this.#length + this.#text.length * MAX_BYTES_PER_CHAR;
    this.#bytes = withRoom(this.#bytes, this.#length, needed);
    this.#length += this.#bytes.write(this.#text, this.#length);
    this.#text = '';
  }
}

/** Concurrent calls on libuv's pool: enough to keep it busy with small frames. */
const MAX_CALLS = 64;

/** Bytes that wait for compression or for an earlier frame. Bounds the memory of a writer. */
const MAX_WAITING_BYTES = 16 * 2 ** 20;

interface Item {
  readonly uncompressedBytes: number;
  readonly done: (startBytes: number, endBytes: number) => void;
  frame: Buffer | undefined;
}

/** Compresses with zstd's default level, 3; the library takes no other. */
const zstdFrame = (raw: Buffer): Promise<Buffer> => compress(raw);

/**
 * Compresses pieces in parallel and writes the frames in the order of the pieces; zstd frames by
 * default.
 */
export class FrameQueue {
  readonly #write: (frame: Buffer) => void;
  readonly #compress: (raw: Buffer) => Promise<Buffer>;
  readonly #items: Item[] = [];
  readonly #idle: (() => void)[] = [];
  #calls = 0;
  #waitingBytes = 0;
  #error: unknown;
  /** Bytes written so far. */
  offsetBytes = 0;

  constructor(write: (frame: Buffer) => void, compressFrame: (raw: Buffer) => Promise<Buffer> = zstdFrame) {
    this.#write = write;
    this.#compress = compressFrame;
  }

  /**
   * Queues a frame of these bytes, which must not change. Calls `done` with its offsets once it is
   * written.
   */
  add(raw: Buffer, done: (startBytes: number, endBytes: number) => void): void {
    const item: Item = { uncompressedBytes: raw.length, done, frame: undefined };
    this.#items.push(item);
    this.#calls += 1;
    this.#waitingBytes += raw.length;
    this.#compress(raw).then(
      (frame) => {
        item.frame = frame;
        this.#finished();
      },
      (error: unknown) => {
        this.#error ??= error;
        this.#finished();
      },
    );
  }

  /** Calls `done` once all frames queued before are written. */
  after(done: () => void): void {
    this.#items.push({ uncompressedBytes: 0, done, frame: Buffer.alloc(0) });
    this.#drain();
  }

  /**
   * Resolves when the queue accepts more; rejects with the first error of compressing or writing.
   */
  async room(): Promise<void> {
    while (this.#error === undefined && this.#isFull) await this.#change();
    if (this.#error !== undefined) throw this.#error;
  }

  /** Resolves when all frames are written; rejects as `room`. */
  async drained(): Promise<void> {
    while (this.#calls > 0) await this.#change();
    if (this.#error !== undefined) throw this.#error;
  }

  get #isFull(): boolean {
    return this.#calls >= MAX_CALLS || this.#waitingBytes >= MAX_WAITING_BYTES;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  #finished(): void {
    this.#calls -= 1;
    try {
      this.#drain();
    } catch (error) {
      this.#error ??= error;
    }
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #drain(): void {
    if (this.#error !== undefined) return;
    let count = 0;
    for (const item of this.#items) {
      if (item.frame === undefined) break;
      count += 1;
      const start = this.offsetBytes;
      this.offsetBytes += item.frame.length;
      if (item.frame.length > 0) this.#write(item.frame);
      item.done(start, this.offsetBytes);
      this.#waitingBytes -= item.uncompressedBytes;
    }
    if (count > 0) this.#items.splice(0, count);
  }
}
