import type { Readable } from 'node:stream';

/** Bytes handed on at a time: small enough for the cache, and a task of this thread waits no longer than this takes. */
const PART_BYTES = 2 ** 20;
const PARTS_A_TURN = 4;

/** Above this, whoever decodes more waits. */
const FULL_BYTES = 8 * 2 ** 20;

/**
 * Decoded bytes on their way to who takes them. They are handed on in a turn of their own, so that libuv's pool has its
 * next work before this thread hashes and writes what the last one gave.
 */
export class DecodedQueue {
  readonly #take: (bytes: Buffer) => void;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #turn: NodeJS.Immediate | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;
  /** Who waits for room, or for the end. */
  #wakes: Array<() => void> = [];

  constructor(take: (bytes: Buffer) => void) {
    this.#take = take;
  }

  /** The next decoded bytes; they are not the caller's any more. */
  push(bytes: Buffer): void {
    if (this.#closed) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#turn ??= setImmediate(this.#run);
  }

  /** Whether whoever decodes more should wait for room first. */
  get full(): boolean {
    return this.#waitingBytes >= FULL_BYTES;
  }

  /** Takes what comes out of a stream, which pauses while there is no room: a MiB of compressed zeros can be a GiB. */
  pour(stream: Readable, gather: (chunk: Buffer) => void = (chunk) => this.push(chunk)): void {
    stream.on('data', (chunk: Buffer) => {
      gather(chunk);
      if (!this.full || stream.isPaused()) return;
      stream.pause();
      const goOn = () => stream.resume();
      this.room().then(goOn, goOn);
    });
  }

  /** Resolves when there is room for more. Rejects with what the taker threw. */
  async room(): Promise<void> {
    while (this.full) await this.#next();
    this.#check();
  }

  /** Resolves when all is taken. Rejects with what the taker threw. */
  async drained(): Promise<void> {
    while (this.#waitingBytes > 0) await this.#next();
    this.#check();
  }

  /** Nothing is handed on any more. */
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
      for (let parts = 0; parts < PARTS_A_TURN && this.#waiting.length > 0; parts++) this.#handOn();
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

  #handOn(): void {
    const [first] = this.#waiting as [Buffer];
    const part = first.subarray(0, PART_BYTES);
    if (part.length === first.length) this.#waiting.shift();
    else this.#waiting[0] = first.subarray(PART_BYTES);
    this.#take(part);
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
