import { setImmediate as nextTurn } from 'node:timers/promises';
import { Decompress } from 'fzstd';
import { PullError } from '../src/format/error.js';
import type { Outflow } from './outflow.js';
import type { FrameDecoder } from './zstd-engine.js';

/** fzstd reads offsets of at most 25 bits beyond their first one: a window of 64 MiB and more would decode to other bytes. */
const MAX_WINDOW_BYTES = 2 ** 26 - 1;

/** Compressed bytes of one call: blocks of 4 bytes can each decode to 128 KiB, all of which is memory when it returns. */
const CALL_BYTES = 512;

/** Compressed bytes that are decoded before other tasks of this thread have their turn: some milliseconds. */
const BYTES_A_TURN = 64 * 1024;

/** Decodes a frame by fzstd. It checks no checksum: that of the layer tells. */
export class ScriptFrame implements FrameDecoder {
  readonly #out: Outflow;
  readonly #decompress: Decompress;

  constructor(windowBytes: number, out: Outflow) {
    if (windowBytes > MAX_WINDOW_BYTES) {
      throw new PullError(
        'unsupported',
        `a frame needs a window of ${windowBytes / 2 ** 20} MiB, which takes the program zstd, or Node 22.15 or later`,
        { hint: 'install the program zstd, or run zpull with Node 22.15 or later' },
      );
    }
    this.#out = out;
    this.#decompress = new Decompress((bytes) => {
      if (bytes.length > 0) out.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    });
  }

  async feed(bytes: Buffer): Promise<void> {
    const own = new Uint8Array(bytes); // it keeps what it cannot decode yet
    for (let at = 0; at < own.length; at += CALL_BYTES) {
      this.#decompress.push(own.subarray(at, at + CALL_BYTES));
      if (at % BYTES_A_TURN === 0) await nextTurn();
      await this.#out.room();
    }
  }

  /** The frame's blocks are whole, so that nothing is left to decode. */
  async finish(): Promise<void> {}

  close(): void {}
}
