import { createInflateRaw } from 'node:zlib';
import {
  type DecodedQueue,
  type StreamDecoder,
  StreamProblem,
  ZLIB_CHUNK_BYTES,
  ZlibStream,
} from './stream-decoder.js';

/**
 * Each member takes a decoder of its own, 60 µs and 2 MiB. bgzip writes one for 64 KiB of tar,
 * so that this is 640 MB.
 */
const MAX_MEMBERS = 10_000;

/** RFC 1952 does not limit the name and comment of a header; real ones have some dozen bytes. */
const MAX_HEADER_BYTES = 2 ** 17;

/** Checksum and length (RFC 1952, section 2.3.1). */
const TRAILER_BYTES = 8;

/** How many of the bytes behind the last member the message shows. */
const SHOWN_BYTES = 8;

/**
 * Decodes gzip members one by one, to find where the last one ends and what is behind it, which
 * zlib does not report to GzipDecoder. Slower than that.
 */
export class GzipMembersDecoder implements StreamDecoder {
  readonly #out: DecodedQueue;
  #stage: 'padding' | 'header' | 'data' | 'trailer' | 'behind' = 'header';
  #data: ZlibStream | undefined;
  /** The received part of a header or trailer, or the first bytes behind the last member. */
  #part = Buffer.alloc(0);
  #members = 0;
  /** The blob offset of the next byte. */
  #blobAt = 0;
  /** The blob offset of the member, or of the first byte behind the last one. */
  #beganAt = 0;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  async write(bytes: Buffer): Promise<void> {
    for (let next = Buffer.from(bytes); next.length > 0; ) {
      const consumed = await this.#consume(next);
      this.#blobAt += consumed;
      next = next.subarray(consumed);
    }
  }

  async end(): Promise<void> {
    const isInHeader = this.#stage === 'header' && this.#part.length > 0;
    if (isInHeader && this.#members > 0) this.#noMember();
    else if (isInHeader || this.#stage === 'data' || this.#stage === 'trailer')
      throw new StreamProblem('is cut off: its gzip data have no end', this.#blobAt);
    if (this.#stage === 'behind') throw this.#behind();
    await this.#out.drained();
  }

  async close(): Promise<void> {
    this.#data?.close();
  }

  /** Processes some of the bytes. Returns how many. */
  async #consume(bytes: Buffer): Promise<number> {
    switch (this.#stage) {
      case 'padding':
        return this.#skipPadding(bytes);
      case 'header':
        return this.#readHeader(bytes);
      case 'data':
        return this.#decodeData(bytes);
      case 'trailer': {
        const length = Math.min(bytes.length, TRAILER_BYTES - this.#part.length);
        this.#part = Buffer.concat([this.#part, bytes.subarray(0, length)]);
        if (this.#part.length === TRAILER_BYTES) this.#stage = 'padding';
        return length;
      }
      case 'behind':
        if (this.#part.length < SHOWN_BYTES)
          this.#part = Buffer.concat([this.#part, bytes.subarray(0, SHOWN_BYTES)]);
        return bytes.length;
    }
  }

  #skipPadding(bytes: Buffer): number {
    const zeros = bytes.findIndex((byte) => byte !== 0);
    if (zeros < 0) return bytes.length;
    this.#stage = 'header';
    this.#part = Buffer.alloc(0);
    this.#beganAt = this.#blobAt + zeros;
    return zeros;
  }

  #readHeader(bytes: Buffer): number {
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
        `has bytes after its gzip data that are no padding, and more than ${MAX_MEMBERS} members before`,
        this.#beganAt,
      );
    this.#data = new ZlibStream(createInflateRaw({ chunkSize: ZLIB_CHUNK_BYTES }), this.#out);
    this.#stage = 'data';
    return headerBytes - before;
  }

  async #decodeData(bytes: Buffer): Promise<number> {
    const consumed = await this.#inflate(bytes);
    await this.#out.room();
    if (consumed < bytes.length) {
      this.#data?.close();
      this.#data = undefined;
      this.#part = Buffer.alloc(0);
      this.#stage = 'trailer';
    }
    return consumed;
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
      `has ${count} after its gzip data that are neither gzip nor padding (${shown})`,
      this.#beganAt,
      'metadata-malformed',
      'something appended them to the blob before it was pushed: rebuild the image, or push it again without them',
    );
  }

  /** Called for bytes that do not begin a member. */
  #noMember(): void {
    if (this.#members === 0) throw new StreamProblem('is no gzip data', 0);
    this.#stage = 'behind';
  }
}

const FLAG = { headerChecksum: 2, extra: 4, name: 8, comment: 16, reserved: 0xe0 };
const FIXED_HEADER_BYTES = 10;

/**
 * Returns the length of the header that begins here (RFC 1952, section 2.3); undefined if it is
 * incomplete, 0 if it is none.
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
