import { createInflateRaw } from 'node:zlib';
import type { DecodedQueue } from './decoded-queue.js';
import { type StreamDecoder, StreamProblem } from './stream-decoder.js';
import { ZLIB_CHUNK_BYTES, ZlibStream } from './zlib-stream.js';

/**
 * Each member takes a decoder of its own, 60 µs and half a MiB. bgzip writes one for 64 KiB of tar:
 * 640 MB.
 */
const MAX_MEMBERS = 10_000;

/** Name and comment of a header have no limit of their own; writers put some dozen bytes there. */
const MAX_HEADER_BYTES = 2 ** 17;

/** Checksum and length (RFC 1952, section 2.3.1). */
const TRAILER_BYTES = 8;

/** As many of the bytes behind the last member as are told. */
const SHOWN_BYTES = 8;

/**
 * Decodes gzip members one by one, to find where the last one ends and what is behind it: zlib does
 * not tell that to GzipDecoder when it fails there. Slower than that.
 */
export class GzipMembersDecoder implements StreamDecoder {
  readonly #out: DecodedQueue;
  #stage: 'padding' | 'header' | 'data' | 'trailer' | 'behind' = 'header';
  #data: ZlibStream | undefined;
  /** The part of a header or trailer that is there. */
  #part = Buffer.alloc(0);
  #members = 0;
  /** Where in the blob the next byte is, and the member or what is behind the last one began. */
  #blobAt = 0;
  #beganAt = 0;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  async write(bytes: Buffer): Promise<void> {
    for (let rest = Buffer.from(bytes); rest.length > 0; ) {
      const taken = await this.#take(rest);
      this.#blobAt += taken;
      rest = rest.subarray(taken);
    }
  }

  async end(): Promise<void> {
    const isHalfHeader = this.#stage === 'header' && this.#part.length > 0;
    if (isHalfHeader && this.#members > 0) this.#noMember();
    else if (isHalfHeader || this.#stage === 'data' || this.#stage === 'trailer')
      throw new StreamProblem('is cut off: its gzip data have no end', this.#blobAt);
    if (this.#stage === 'behind') throw this.#behind();
    await this.#out.drained();
  }

  async close(): Promise<void> {
    this.#data?.close();
  }

  /** Takes some of the bytes; returns how many. */
  async #take(bytes: Buffer): Promise<number> {
    switch (this.#stage) {
      case 'padding':
        return this.#passPadding(bytes);
      case 'header':
        return this.#takeHeader(bytes);
      case 'data':
        return this.#takeData(bytes);
      case 'trailer': {
        const taken = Math.min(bytes.length, TRAILER_BYTES - this.#part.length);
        this.#part = Buffer.concat([this.#part, bytes.subarray(0, taken)]);
        if (this.#part.length === TRAILER_BYTES) this.#stage = 'padding';
        return taken;
      }
      case 'behind': {
        if (this.#part.length < SHOWN_BYTES)
          this.#part = Buffer.concat([this.#part, bytes.subarray(0, SHOWN_BYTES)]);
        return bytes.length;
      }
    }
  }

  #passPadding(bytes: Buffer): number {
    const zeros = bytes.findIndex((byte) => byte !== 0);
    if (zeros < 0) return bytes.length;
    this.#stage = 'header';
    this.#part = Buffer.alloc(0);
    this.#beganAt = this.#blobAt + zeros;
    return zeros;
  }

  #takeHeader(bytes: Buffer): number {
    const before = this.#part.length;
    this.#part = Buffer.concat([this.#part, bytes.subarray(0, MAX_HEADER_BYTES - before)]);
    const headerBytes = headerLength(this.#part);
    if (headerBytes === 0 || (headerBytes === undefined && this.#part.length === MAX_HEADER_BYTES)) {
      this.#noMember();
      return this.#part.length - before;
    }
    if (headerBytes === undefined) return bytes.length;
    this.#members += 1;
    if (this.#members > MAX_MEMBERS)
      throw new StreamProblem(
        `has bytes behind its gzip data that are no padding, and more than ${MAX_MEMBERS} members before`,
        this.#beganAt,
      );
    this.#data = new ZlibStream(createInflateRaw({ chunkSize: ZLIB_CHUNK_BYTES }), this.#out);
    this.#stage = 'data';
    return headerBytes - before;
  }

  async #takeData(bytes: Buffer): Promise<number> {
    const taken = await this.#inflate(bytes);
    await this.#out.room();
    if (taken < bytes.length) {
      this.#data?.close();
      this.#data = undefined;
      this.#part = Buffer.alloc(0);
      this.#stage = 'trailer';
    }
    return taken;
  }

  async #inflate(bytes: Buffer): Promise<number> {
    try {
      return await this.#data!.feed(bytes);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StreamProblem(`has gzip data that cannot be decoded (${reason})`, this.#beganAt);
    }
  }

  #behind(): StreamProblem {
    const lengthBytes = this.#blobAt - this.#beganAt;
    const first = this.#part.toString('hex', 0, SHOWN_BYTES).replaceAll(/..(?=.)/g, '$& ');
    const shown = lengthBytes > SHOWN_BYTES ? `${first} …` : first;
    const count = lengthBytes === 1 ? '1 byte' : `${lengthBytes} bytes`;
    return new StreamProblem(
      `has ${count} behind its gzip data that are no gzip and no padding (${shown})`,
      this.#beganAt,
      'metadata-malformed',
      'something appended them to the blob before it was pushed: rebuild the image, or push it again without them',
    );
  }

  /** The bytes here do not begin a member. */
  #noMember(): void {
    if (this.#members === 0) throw new StreamProblem('is no gzip data', 0);
    this.#stage = 'behind';
  }
}

const FLAG = { headerChecksum: 2, extra: 4, name: 8, comment: 16, reserved: 0xe0 };
const FIXED_HEADER_BYTES = 10;

/**
 * Length of the header that begins here (RFC 1952, section 2.3); undefined while it is not whole, 0
 * when it is none.
 */
function headerLength(bytes: Buffer): number | undefined {
  const flags = bytes[3] ?? 0;
  const magic = [0x1f, 0x8b, 8];
  if (magic.some((byte, at) => at < bytes.length && bytes[at] !== byte) || (flags & FLAG.reserved) !== 0)
    return 0;
  let end = FIXED_HEADER_BYTES;
  if (bytes.length < end) return undefined;
  if ((flags & FLAG.extra) !== 0) {
    if (bytes.length < end + 2) return undefined;
    end += 2 + bytes.readUInt16LE(end);
  }
  for (const flag of [FLAG.name, FLAG.comment]) {
    if ((flags & flag) === 0) continue;
    const nul = bytes.indexOf(0, end);
    if (nul < 0 || end > bytes.length) return undefined;
    end = nul + 1;
  }
  if ((flags & FLAG.headerChecksum) !== 0) end += 2;
  return end <= bytes.length ? end : undefined;
}
