import { compress } from '@mongodb-js/zstd';

/** Calls on libuv's pool at a time: enough to keep it busy over small frames. */
const MAX_CALLS = 64;

/** Bytes waiting for compression or for an earlier frame: what bounds the memory of a writer. */
const MAX_WAITING_BYTES = 16 * 2 ** 20;

interface Item {
  readonly uncompressedBytes: number;
  readonly done: (startBytes: number, endBytes: number) => void;
  frame: Buffer | undefined;
}

/** The level is zstd's default, 3: the library's wrapper hands no other one on. */
const zstdFrame = (raw: Buffer): Promise<Buffer> => compress(raw);

/**
 * Compresses many pieces at a time and writes the frames in the order in which the pieces came: zstd frames unless
 * another way to compress is given.
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

  /** One frame of these bytes, which must stay as they are; `done` learns where it lies once it is written. */
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

  /** Calls `done` after the frames added before. */
  after(done: () => void): void {
    this.#items.push({ uncompressedBytes: 0, done, frame: Buffer.alloc(0) });
    this.#drain();
  }

  /** Resolves when there is room for more; rejects with the first error of a frame or of writing it. */
  async room(): Promise<void> {
    while (this.#error === undefined && this.#isFull) await this.#change();
    if (this.#error !== undefined) throw this.#error;
  }

  /** Resolves when everything has been written. */
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
