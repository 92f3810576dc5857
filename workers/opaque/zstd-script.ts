import { setImmediate as nextTurn } from 'node:timers/promises';
import { Decompress } from 'fzstd';
import { PullError } from '../../src/format/error.js';
import type { DecodedQueue } from './decoded-queue.js';
import type { FrameDecoder } from './zstd-engine.js';

/**
 * fzstd reads offsets of at most 25 bits beyond their first one: a window of 64 MiB and more would
 * decode to other bytes.
 */
const MAX_WINDOW_BYTES = 2 ** 26 - 1;

/** Decoded bytes are gathered to blocks of this size: a block of a frame can be one byte. */
const BLOCK_BYTES = 512 * 1024;

/**
 * fzstd moves the whole window for each block. With the largest window and blocks of 128 KiB, as
 * writers make them, that are 512 bytes for each decoded one; tiny blocks would take hours. Beside
 * that, 4 GiB are moved in a second, for all frames of a stream together.
 */
const MAX_MOVED_RATIO = 1024;
const FREE_MOVED_BYTES = 4 * 2 ** 30;

const NOTHING = Buffer.alloc(0);

/** What the frames of one layer have taken so far. */
interface Work {
  decodedBytes: number;
  movedBytes: number;
}

const works = new WeakMap<DecodedQueue, Work>();

/**
 * Compressed bytes of one call: blocks of 4 bytes can each decode to 128 KiB, all of which is
 * memory when it returns.
 */
const CALL_BYTES = 512;

/**
 * Compressed bytes that are decoded before other tasks of this thread have their turn: some
 * milliseconds.
 */
const BYTES_A_TURN = 64 * 1024;

/** Decodes a frame by fzstd. It checks no checksum: that of the layer tells. */
export class ScriptFrame implements FrameDecoder {
  readonly takesMany = false;
  readonly #out: DecodedQueue;
  readonly #decompress: Decompress;
  readonly #work: Work;
  #block = NOTHING;
  #filled = 0;

  constructor(windowBytes: number, out: DecodedQueue) {
    if (windowBytes > MAX_WINDOW_BYTES) {
      throw new PullError(
        'unsupported',
        `a frame needs a window of ${windowBytes / 2 ** 20} MiB, which takes the program zstd, or Node 22.15 or later`,
        { hint: 'install the program zstd, or run zpull with Node 22.15 or later' },
      );
    }
    this.#out = out;
    const work = works.get(out) ?? { decodedBytes: 0, movedBytes: 0 };
    works.set(out, work);
    this.#work = work;
    this.#decompress = new Decompress((bytes) => {
      work.movedBytes += windowBytes;
      work.decodedBytes += bytes.length;
      this.#gather(bytes);
    });
  }

  async feed(bytes: Buffer): Promise<void> {
    const own = new Uint8Array(bytes); // it keeps what it cannot decode yet
    for (let at = 0; at < own.length; at += CALL_BYTES) {
      this.#decompress.push(own.subarray(at, at + CALL_BYTES));
      const { movedBytes, decodedBytes } = this.#work;
      if (movedBytes > FREE_MOVED_BYTES + decodedBytes * MAX_MOVED_RATIO) {
        throw new PullError(
          'unsupported',
          'its blocks are so small that only the program zstd, or Node 22.15 or later, can decode them',
        );
      }
      if (at % BYTES_A_TURN === 0) await nextTurn();
      await this.#out.room();
    }
  }

  /** The frame's blocks are whole, so that nothing is left to decode. */
  async finish(): Promise<void> {
    this.#handOn();
  }

  close(): void {}

  #gather(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > BLOCK_BYTES) this.#handOn();
    if (this.#filled === 0) this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.#block.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  #handOn(): void {
    if (this.#filled === 0) return;
    this.#out.push(this.#block.subarray(0, this.#filled));
    this.#filled = 0;
  }
}
