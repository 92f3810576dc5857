import type { FrameQueue } from '../../../src/sandbox/layer-writer.js';

/** A gzip member or zstd frame on its way into the blob. */
interface Member {
  /** Blob offset, -1 until it is written. */
  blobStart: number;
}

/** Gathers the bytes of a tar into members and keeps what waits until their places are known. */
export class StargzMembers {
  readonly #queue: FrameQueue;
  #parts: Buffer[] = [];
  #waiting: (() => void)[] = [];
  /** The member that the next bytes go into. */
  open: Member = { blobStart: -1 };
  /** Bytes in it so far. */
  openBytes = 0;

  constructor(queue: FrameQueue) {
    this.#queue = queue;
  }

  /** The next bytes of the tar, which must stay as they are. */
  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.openBytes += bytes.length;
  }

  /** Calls `done` once the open member is written, after everything that waited before. */
  after(done: () => void): void {
    this.#waiting.push(done);
  }

  /** Ends the open member: the next bytes begin another one. */
  cut(): void {
    const member = this.open;
    const waiting = this.#waiting;
    this.#queue.add(Buffer.concat(this.#parts, this.openBytes), (start) => {
      member.blobStart = start;
      for (const done of waiting) done();
    });
    this.open = { blobStart: -1 };
    this.#parts = [];
    this.#waiting = [];
    this.openBytes = 0;
  }
}
