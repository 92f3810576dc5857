import type { Readable, Transform } from 'node:stream';
import type { StreamFault } from '../../src/pool/messages.js';
import { threadClock } from '../../src/pool/stage-clock.js';

/** Decodes the blob of an opaque layer. Decoded bytes go to a `DecodedQueue`. */
export interface StreamDecoder {
  /**
   * Copies the next bytes before it returns; resolves when it can receive more, before which it
   * must not be called again. Rejects with a StreamProblem for bytes that cannot be decoded, and
   * with the error of the queue's consumer.
   */
  write(bytes: Buffer): Promise<void>;
  /** Ends the input; resolves when everything is decoded and consumed. Rejects as `write`. */
  end(): Promise<void>;
  /** Frees the decoder, even before its end. */
  close(): Promise<void>;
}

/** Why a blob cannot be decoded: a clause whose subject is the blob. */
export class StreamProblem extends Error {
  /** The offset of the problem in the blob; undefined for the end of the bytes decoded so far. */
  readonly blobAt: number | undefined;
  readonly code: StreamFault['code'];
  readonly hint: string | undefined;

  constructor(
    message: string,
    blobAt?: number,
    code: StreamFault['code'] = 'metadata-malformed',
    hint?: string,
  ) {
    super(message);
    this.blobAt = blobAt;
    this.code = code;
    this.hint = hint;
  }
}

/**
 * A problem whose reason may be bytes behind the last gzip member: zlib does not report where that
 * ended.
 */
export class UnclearEnd extends StreamProblem {}

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

/**
 * Decoded bytes of one call of the decoder, on libuv's pool. At each call one thread waits for
 * another: 2 MiB take 10 % less time than 512 KiB, and 4 MiB no less.
 */
export const ZLIB_CHUNK_BYTES = 2 * 2 ** 20;

/** Feeds a decoder of node:zlib block by block. */
export class ZlibStream {
  readonly #stream: Transform & { readonly bytesWritten: number };
  #failure: Error | undefined;
  #reject: ((error: Error) => void) | undefined;

  constructor(stream: Transform & { readonly bytesWritten: number }, out: DecodedQueue) {
    this.#stream = stream;
    out.pour(stream);
    stream.on('error', (error) => {
      this.#failure = error;
      this.#reject?.(error);
    });
  }

  /** The number of compressed bytes that were decoded. */
  get consumedBytes(): number {
    return this.#stream.bytesWritten;
  }

  /**
   * Decodes bytes, which must not change before this resolves: with the number of bytes decoded,
   * fewer than all if the data end before. Rejects with zlib's error.
   */
  feed(bytes: Buffer): Promise<number> {
    const before = this.consumedBytes;
    return this.#decode((resolve) =>
      this.#stream.write(bytes, (error) => {
        if (error == null) resolve(this.consumedBytes - before);
      }),
    );
  }

  /** Ends the input. Rejects with zlib's error if the data are incomplete. */
  finish(): Promise<void> {
    return this.#decode((resolve) => {
      this.#stream.once('end', resolve);
      this.#stream.end();
    });
  }

  /** Rejects pending calls, which would never settle. */
  close(): void {
    this.#stream.destroy();
    this.#reject?.(new Error('it was closed'));
  }

  #decode<T>(start: (resolve: (value: T) => void) => void): Promise<T> {
    const attempt = () =>
      new Promise<T>((resolve, reject) => {
        this.#reject = reject;
        if (this.#failure === undefined) start(resolve);
        else reject(this.#failure);
      });
    return threadClock.during('decode', 'work', attempt);
  }
}
