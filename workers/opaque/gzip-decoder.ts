import { createGunzip } from 'node:zlib';
import {
  type DecodedQueue,
  type StreamDecoder,
  StreamProblem,
  UnclearEnd,
  ZLIB_CHUNK_BYTES,
  ZlibStream,
} from './stream-decoder.js';

/**
 * Limit of members behind padding: each takes a decoder of its own, 60 µs and 2 MiB. Tapes and
 * copies by blocks pad the end of an archive, so that real blobs have a few.
 */
const MAX_PADDED_MEMBERS = 10_000;

/** The messages of zlib for bytes that begin no gzip member (inflate.c). */
const NO_HEADER: ReadonlySet<string> = new Set([
  'incorrect header check',
  'unknown compression method',
  'unknown header flags set',
  'header crc mismatch',
]);

/**
 * A gzip member begins with these two bytes (RFC 1952, section 2.3.1); no padding begins with the
 * first.
 */
const MAGIC = Buffer.from([0x1f, 0x8b]);

/**
 * Decodes gzip of one or many members. Zeros behind a member are padding, as in GNU gzip; other
 * bytes that are no member are a problem. One block is decoded while the next is received.
 */
export class GzipDecoder implements StreamDecoder {
  readonly #out: DecodedQueue;
  /** Decodes members without padding between; undefined before the first one and in padding. */
  #members: ZlibStream | undefined;
  /** The blob offset of the start of `#members`, or of the next byte of padding. */
  #blobAt = 0;
  /** The first two bytes of the blob. */
  #head = Buffer.alloc(0);
  /** The number of members behind padding. */
  #padded = 0;
  #decoding: Promise<void> = Promise.resolve();
  /** The block being decoded, and the next one. */
  readonly #blocks = [Buffer.alloc(0), Buffer.alloc(0)];
  #nextBlock = 0;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  write(bytes: Buffer): Promise<void> {
    const block = this.#copy(bytes);
    const previous = this.#decoding;
    this.#decoding = previous.then(() => this.#decode(block));
    this.#decoding.catch(() => {}); // reported by the next `write` or `end`
    return previous;
  }

  async end(): Promise<void> {
    await this.#decoding;
    if (this.#blobAt === 0 && this.#members === undefined) throw new StreamProblem('is empty', 0);
    if (this.#members !== undefined) await this.#attempt(this.#members.finish());
    await this.#out.drained();
  }

  async close(): Promise<void> {
    this.#members?.close();
  }

  #copy(bytes: Buffer): Buffer {
    const row = this.#nextBlock;
    this.#nextBlock = 1 - row;
    if (this.#blocks[row]!.length < bytes.length) this.#blocks[row] = Buffer.allocUnsafeSlow(bytes.length);
    bytes.copy(this.#blocks[row]!);
    return this.#blocks[row]!.subarray(0, bytes.length);
  }

  async #decode(block: Buffer): Promise<void> {
    if (this.#head.length < 2) this.#head = Buffer.concat([this.#head, block.subarray(0, 2)]).subarray(0, 2);
    for (let next = block; next.length > 0; ) {
      if (this.#members === undefined) next = this.#begin(next);
      if (this.#members === undefined) return;
      next = next.subarray(await this.#attempt(this.#members.feed(next)));
      await this.#out.room();
      if (next.length > 0) this.#endMembers();
    }
  }

  /** Skips padding. Returns the remaining bytes, with which a member begins. */
  #begin(bytes: Buffer): Buffer {
    let at = 0;
    if (this.#blobAt > 0) while (at < bytes.length && bytes[at] === 0) at++;
    this.#blobAt += at;
    if (at === bytes.length) return bytes.subarray(at);
    if (bytes[at] !== MAGIC[0]) throw this.#noMember();
    if (this.#blobAt > 0 && ++this.#padded > MAX_PADDED_MEMBERS)
      throw new StreamProblem(
        `has padding before more than ${MAX_PADDED_MEMBERS} gzip members`,
        this.#blobAt,
      );
    this.#members = new ZlibStream(createGunzip({ chunkSize: ZLIB_CHUNK_BYTES }), this.#out);
    return bytes.subarray(at);
  }

  /** Called when zlib has stopped at zeros behind a member. */
  #endMembers(): void {
    this.#blobAt += this.#members!.consumedBytes;
    this.#members!.close();
    this.#members = undefined;
  }

  async #attempt<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw this.#problem(error as NodeJS.ErrnoException);
    }
  }

  /** Turns an error of zlib into a problem of the blob. */
  #problem(error: NodeJS.ErrnoException): StreamProblem {
    const blobAt = this.#blobAt + (this.#members?.consumedBytes ?? 0);
    if (error.code === 'Z_BUF_ERROR') return new UnclearEnd('is cut off: its gzip data have no end', blobAt);
    if (NO_HEADER.has(error.message)) return this.#noMember();
    return new StreamProblem(`has gzip data that cannot be decoded (${error.message})`, blobAt);
  }

  #noMember(): StreamProblem {
    if (!this.#head.equals(MAGIC)) return new StreamProblem('is no gzip data', 0);
    const blobAt = this.#blobAt + (this.#members?.consumedBytes ?? 0);
    return new UnclearEnd('has bytes after its gzip data that are no padding', blobAt);
  }
}
