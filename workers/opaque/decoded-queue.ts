import type { Readable } from 'node:stream';

/**
 * Bytes consumed at a time: they fit the cache, and delay other tasks of this thread only for a
 * short time.
 */
const PART_BYTES = 2 ** 20;
const PARTS_A_TURN = 4;

/** The decoder waits above this. */
const FULL_BYTES = 8 * 2 ** 20;

/**
 * Queues decoded bytes for their consumer, which gets them in a later turn of the event loop: so
 * libuv's pool has its next work before this thread hashes and writes the last result.
 */
export class DecodedQueue {
  readonly #consume: (bytes: Buffer) => void;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #turn: NodeJS.Immediate | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;
  /** Callers that wait for room, or for the end. */
  #wakes: Array<() => void> = [];

  constructor(consume: (bytes: Buffer) => void) {
    this.#consume = consume;
  }

  /** Adds decoded bytes, and takes ownership of them. */
  push(bytes: Buffer): void {
    if (this.#closed) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#turn ??= setImmediate(this.#run);
  }

  /** Whether the decoder should wait for `room`. */
  get full(): boolean {
    return this.#waitingBytes >= FULL_BYTES;
  }

  /**
   * Adds the output of a stream, and pauses it while there is no room: a MiB of compressed zeros
   * can be a GiB.
   */
  pour(stream: Readable, gather: (chunk: Buffer) => void = (chunk) => this.push(chunk)): void {
    stream.on('data', (chunk: Buffer) => {
      gather(chunk);
      if (!this.full || stream.isPaused()) return;
      stream.pause();
      const resume = () => stream.resume();
      this.room().then(resume, resume);
    });
  }

  /** Resolves when there is room for more. Rejects with the error of the consumer. */
  async room(): Promise<void> {
    while (this.full) await this.#next();
    this.#check();
  }

  /** Resolves when all bytes are consumed. Rejects with the error of the consumer. */
  async drained(): Promise<void> {
    while (this.#waitingBytes > 0) await this.#next();
    this.#check();
  }

  /** Drops all bytes, and ignores further ones. */
  close(): void {
    this.#closed = true;
    clearImmediate(this.#turn);
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
    this.#wakeAll();
  }

  readonly #run = (): void => {
    this.#turn = undefined;
    try {
      for (let parts = 0; parts < PARTS_A_TURN && this.#waiting.length > 0; parts++) this.#consumeNext();
    } catch (error) {
      this.#failure = { error };
      this.close();
    }
    if (this.#waiting.length > 0) this.#turn = setImmediate(this.#run);
    this.#wakeAll();
  };

  #wakeAll(): void {
    const wakes = this.#wakes;
    this.#wakes = [];
    for (const wake of wakes) wake();
  }

  #consumeNext(): void {
    const [first] = this.#waiting as [Buffer];
    const part = first.subarray(0, PART_BYTES);
    if (part.length === first.length) this.#waiting.shift();
    else this.#waiting[0] = first.subarray(PART_BYTES);
    this.#consume(part);
    this.#waitingBytes -= part.length;
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wakes.push(resolve);
    });
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
