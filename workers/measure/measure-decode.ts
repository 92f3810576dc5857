import { closeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { withRoom } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';
import { FrameWalker } from '../../src/format/zstd-frame.js';
import type {
  MeasureDecodeResult,
  MeasureDecodeTask,
  MeasuredBlob,
  MeasureReadTask,
} from '../../src/pool/messages.js';
import { type FrameDecoder, frameDecoder } from '../fetch/frame-decoder.js';
import { openBlob, readBlock } from '../fetch/local-range.js';
import { BlobDecoder } from '../opaque/decode-blob.js';
import { DecodedQueue, StreamProblem } from '../opaque/stream-decoder.js';
import { timed } from './measure-bytes.js';

/** Bytes of a blob read at a time. */
const BLOCK_BYTES = 2 ** 20;

/** Compressed bytes that are decoded at a time, as in a large pull. */
const PIECE_BYTES = 256 * 1024;

/** Most bytes buffered of one frame: noise is slightly longer compressed than decoded. */
const MAX_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/** Reads blobs, so that they are in the system's memory. @throws PullError `blob-not-found` */
export async function measureRead({ blobs, maxBytes }: MeasureReadTask): Promise<undefined> {
  const budget = new Budget(maxBytes);
  await within(budget, async () => {
    for (const blob of blobs) await readAll(blob, budget, () => {});
  });
  return undefined;
}

/**
 * Decodes blobs by the decoders of a pull: zstd:chunked layers frame by frame in this thread, all
 * others as a stream in libuv's pool.
 * @throws PullError `blob-not-found`; `metadata-malformed` or `unsupported` for a blob that cannot
 *   be decoded
 */
export async function measureDecode({ blobs, maxBytes }: MeasureDecodeTask): Promise<MeasureDecodeResult> {
  const decode = await frameDecoder();
  const budget = new Budget(maxBytes);
  return timed(async () => {
    await within(budget, async () => {
      for (const blob of blobs) await decodeBlob(blob, budget, decode);
    });
    const { tarBytes: bytes, blobBytes, isUsedUp: isPartial } = budget;
    return { bytes, blobBytes, isPartial };
  });
}

/** Thrown to end the work. */
class UsedUp extends Error {}

/** Counts what is processed, up to a limit. */
class Budget {
  tarBytes = 0;
  blobBytes = 0;
  isUsedUp = false;
  readonly #maxBytes: number;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** @throws UsedUp */
  addTar(bytes: number): void {
    this.tarBytes += bytes;
    if (this.tarBytes > this.#maxBytes) this.#end();
  }

  /** @throws UsedUp */
  addBlob(bytes: number): void {
    this.blobBytes += bytes;
    if (this.blobBytes > this.#maxBytes) this.#end();
  }

  #end(): never {
    this.isUsedUp = true;
    throw new UsedUp();
  }
}

/** Ends `work` when the budget is used up; a decoder that is closed then may fail otherwise. */
async function within(budget: Budget, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!budget.isUsedUp) throw error;
  }
}

async function readAll(
  { url }: MeasuredBlob,
  budget: Budget,
  use: (block: Buffer) => void | Promise<void>,
): Promise<void> {
  const file = openBlob(new URL(url));
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  try {
    for (let at = 0; at < file.sizeBytes; ) {
      const bytes = readBlock(file, at, block);
      at += bytes.length;
      budget.addBlob(bytes.length);
      await use(bytes);
      await nextTurn();
    }
  } finally {
    closeSync(file.fd);
  }
}

async function decodeBlob(blob: MeasuredBlob, budget: Budget, decode: FrameDecoder): Promise<void> {
  if (blob.isZstdChunked && (await decodeFrames(blob, budget, decode))) return;
  const out = new DecodedQueue((bytes) => {
    try {
      budget.addTar(bytes.length);
    } catch (error) {
      // At once: what it has taken may decode to GiBs more.
      void decoder.close();
      throw error;
    }
  });
  const decoder = new BlobDecoder(blob.compression, out);
  try {
    await readAll(blob, budget, (block) => decoder.write(block));
    await decoder.end();
  } catch (error) {
    throw error instanceof StreamProblem ? notDecodable(blob, error) : error;
  } finally {
    out.close();
    await decoder.close();
  }
}

function notDecodable({ digest }: MeasuredBlob, { code, message, hint }: StreamProblem): PullError {
  return new PullError(code, `layer ${digest} ${message}`, { layer: digest, hint });
}

/**
 * Decodes a zstd:chunked blob frame by frame. Returns false for one that a pull would decode as a
 * stream.
 */
async function decodeFrames(blob: MeasuredBlob, budget: Budget, decode: FrameDecoder): Promise<boolean> {
  const frames = new Frames(decode, budget);
  const { tarBytes, blobBytes } = budget;
  try {
    await readAll(blob, budget, (block) => frames.write(block));
    frames.end();
    return true;
  } catch (error) {
    if (!(error instanceof PullError) || !['metadata-malformed', 'unsupported'].includes(error.code))
      throw error;
    // All of it is decoded again.
    budget.tarBytes = tarBytes;
    budget.blobBytes = blobBytes;
    return false;
  }
}

/** Decodes frames in this thread, some at a time into one buffer. */
class Frames {
  readonly #decode: FrameDecoder;
  readonly #budget: Budget;
  readonly #walker = new FrameWalker();
  #buffer: Buffer = Buffer.allocUnsafeSlow(4 * PIECE_BYTES);
  #filled = 0;
  /** Whether the rest is one skippable frame: metadata. */
  #isAtEnd = false;

  constructor(decode: FrameDecoder, budget: Budget) {
    this.#decode = decode;
    this.#budget = budget;
  }

  /** @throws PullError `metadata-malformed`, `unsupported`; UsedUp */
  write(bytes: Buffer): void {
    // Parts, so that little is moved behind each piece.
    for (let at = 0; at < bytes.length && !this.#isAtEnd; at += PIECE_BYTES)
      this.#writePart(bytes.subarray(at, at + PIECE_BYTES));
  }

  /** @throws as `write` */
  end(): void {
    if (this.#isAtEnd) return;
    this.#decodeComplete(1);
    if (this.#filled > 0) throw new PullError('metadata-malformed', 'a zstd frame is cut off');
  }

  #writePart(bytes: Buffer): void {
    const walker = this.#walker;
    const needed = this.#filled + bytes.length;
    this.#buffer = withRoom(this.#buffer, this.#filled, needed);
    bytes.copy(this.#buffer, this.#filled);
    this.#filled = needed;
    walker.advance(this.#buffer, needed);
    this.#decodeComplete(PIECE_BYTES);
    if (Math.max(walker.openFrameBytes, walker.openFrameBound) <= MAX_FRAME_BYTES) return;
    if (walker.windowBytes > 0) throw frameTooLarge();
    this.#decodeComplete(1);
    this.#isAtEnd = true;
  }

  /** Decodes complete frames while there are at least `minBytes` of them. */
  #decodeComplete(minBytes: number): void {
    const walker = this.#walker;
    while (walker.completeBytes >= minBytes) {
      let last = 0;
      if (walker.boundUpTo(last) > DECODE_CALL_BYTES) throw frameTooLarge();
      while (last + 1 < walker.frameCount && this.#mayTake(last)) last += 1;
      const end = walker.frameEnd(last);
      const { length } = this.#decode(this.#buffer.subarray(0, end), walker.boundUpTo(last));
      walker.cut(end);
      this.#buffer.copyWithin(0, end, this.#filled);
      this.#filled -= end;
      this.#budget.addTar(length);
    }
  }

  /** Whether the frame behind `last` fits the piece that ends with `last`. */
  #mayTake(last: number): boolean {
    const walker = this.#walker;
    return walker.frameEnd(last) < PIECE_BYTES && walker.boundUpTo(last + 1) <= DECODE_CALL_BYTES;
  }
}

function frameTooLarge(): PullError {
  return new PullError('unsupported', 'a zstd frame is too large to be decoded at once');
}
