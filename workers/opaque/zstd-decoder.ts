import { withRoom } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { FrameWalker, limitWindow, MAX_USUAL_WINDOW_BYTES } from '../../src/format/zstd-frame.js';
import { DECODE_CALL_BYTES, decodeFrames } from '../fetch/decode.js';
import { noteGarbage } from '../garbage.js';
import type { DecodedQueue } from './decoded-queue.js';
import { type LargeWindows, MAX_SMALL_WINDOW_BYTES, windowHint } from './large-windows.js';
import { type StreamDecoder, StreamProblem } from './stream-decoder.js';
import { type FrameDecoder, startFrame, type ZstdEngine } from './zstd-engine.js';

/**
 * Frames are decoded together up to so many compressed bytes: decoding a MiB at once is five times
 * as fast as one by one.
 */
const PIECE_BYTES = 2 ** 20;

/**
 * A program that was started for a large frame gets at least so much: a frame that could be large
 * may have a thousand bytes, and starting costs 4 ms.
 */
const MIN_PROGRAM_BYTES = 4 * 2 ** 20;

/** Most bytes buffered of one frame: noise is slightly longer compressed than decoded. */
const OPEN_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/**
 * The magic numbers of a frame (28 b5 2f fd) and of a skippable one (5X 2a 4d 18) behind their
 * first bytes.
 */
const FRAME_MAGIC_REST = [0xb5, 0x2f, 0xfd] as const;
const SKIPPABLE_MAGIC_REST = [0x2a, 0x4d, 0x18] as const;

/**
 * Decodes zstd of one or many frames, skippable ones included (RFC 8878, section 3.1). Frames that
 * cannot decode to more than 32 MiB are decoded several in one call; a larger one, and a skippable
 * one above that, goes through as it comes.
 */
export class ZstdDecoder implements StreamDecoder {
  readonly #engine: ZstdEngine;
  readonly #out: DecodedQueue;
  readonly #windows: LargeWindows;
  /** The window of a frame does not count where the frame is decoded whole. */
  readonly #walker = new FrameWalker(0, Number.POSITIVE_INFINITY);
  /** Bytes of the blob from `#blobAt` on that are not decoded yet: `#buffer[0, #filled)`. */
  #buffer: Buffer = Buffer.allocUnsafeSlow(2 * PIECE_BYTES);
  #filled = 0;
  #blobAt = 0;
  /** Decodes the frame at the beginning of the buffer as it comes. */
  #large: FrameDecoder | undefined;
  /** Where in the blob it began; whether a frame that it has a part of is not whole. */
  #largeAt = 0;
  #isInFrame = false;
  /** The window that this stream has memory for, and what gives that back. */
  #window: { readonly bytes: number; readonly release: () => void } | undefined;
  #isClosed = false;
  /** The piece that is decoded while the next is gathered. */
  #decoding: Promise<void> = Promise.resolve();

  constructor(engine: ZstdEngine, out: DecodedQueue, windows: LargeWindows) {
    this.#engine = engine;
    this.#out = out;
    this.#windows = windows;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#append(bytes);
    this.#walk();
    await this.#work(false);
  }

  async end(): Promise<void> {
    await this.#work(true);
    await this.#decoding;
    if (this.#large !== undefined && this.#filled === 0 && !this.#isInFrame)
      await this.#endLarge(this.#large);
    const length = this.#blobAt + this.#filled;
    if (length === 0) throw new StreamProblem('is empty', 0);
    if (!this.#isInFrame && !mayBeginFrame(this.#buffer.subarray(0, this.#filled)))
      throw noFrame(this.#blobAt);
    if (this.#filled > 0 || this.#large !== undefined)
      throw new StreamProblem('is cut off inside a zstd frame', length);
    await this.#out.drained();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#large?.close();
    this.#giveWindowBack();
  }

  /** A copy: the caller's bytes are his again. */
  #append(bytes: Buffer): void {
    const needed = this.#filled + bytes.length;
    this.#buffer = withRoom(this.#buffer, this.#filled, needed);
    bytes.copy(this.#buffer, this.#filled);
    this.#filled = needed;
  }

  #walk(): void {
    try {
      this.#walker.advance(this.#buffer, this.#filled);
    } catch (error) {
      const { blobAt } = this.#walker;
      if (!isMalformed(error)) throw problemOf(error, blobAt);
      throw noFrame(blobAt);
    }
  }

  async #work(all: boolean): Promise<void> {
    for (;;) {
      if (this.#large !== undefined) {
        if (!(await this.#passLarge(this.#large))) return;
        continue;
      }
      const piece = this.#nextPiece(all);
      if (piece > 0) await this.#decode(piece);
      else if (this.#firstIsLarge()) await this.#beginLarge();
      else return;
    }
  }

  /** How many bytes of whole frames are decoded next; 0: none, or more should come first. */
  #nextPiece(all: boolean): number {
    const walker = this.#walker;
    let end = 0;
    for (let frame = 0; frame < walker.frameCount; frame++) {
      const full = end >= PIECE_BYTES || walker.boundUpTo(frame) > DECODE_CALL_BYTES;
      if (full) return end;
      end = walker.frameEnd(frame);
    }
    return all || end >= PIECE_BYTES || this.#openIsLarge() ? end : 0;
  }

  #firstIsLarge(): boolean {
    return this.#walker.frameCount > 0 ? this.#walker.boundUpTo(0) > DECODE_CALL_BYTES : this.#openIsLarge();
  }

  #openIsLarge(): boolean {
    const { openFrameBound, openFrameBytes } = this.#walker;
    return openFrameBound > DECODE_CALL_BYTES || openFrameBytes > OPEN_FRAME_BYTES;
  }

  /** At most one piece is decoded while the next is gathered. */
  async #decode(length: number): Promise<void> {
    const piece = Buffer.from(this.#buffer.subarray(0, length));
    if (this.#walker.largestWindowBytes > MAX_USUAL_WINDOW_BYTES) this.#limitWindows(piece);
    const blobAt = this.#blobAt;
    this.#walker.cut(length);
    this.#drop(length);
    const previous = this.#decoding;
    const decoded = decodeFrames(piece);
    decoded.catch(() => {}); // heard of below, after the piece before it
    this.#decoding = previous.then(() => this.#handOn(decoded, blobAt));
    this.#decoding.catch(() => {}); // heard of at the next piece, or at the end
    noteGarbage(length);
    await previous;
    await this.#out.room();
  }

  async #handOn(decoded: Promise<Buffer>, blobAt: number): Promise<void> {
    try {
      this.#out.push(await decoded);
    } catch (error) {
      throw problemOf(error, blobAt);
    }
  }

  /** These frames decode to less than the usual window. */
  #limitWindows(frames: Buffer): void {
    for (let frame = 0, start = 0; start < frames.length; start = this.#walker.frameEnd(frame++))
      limitWindow(frames, start);
  }

  async #beginLarge(): Promise<void> {
    await this.#decoding;
    await this.#takeWindow();
    this.#largeAt = this.#blobAt;
    try {
      const windows = { neededBytes: this.#walker.windowBytes, maxBytes: this.#windows.maxBytes };
      this.#large = startFrame(this.#engine, windows, this.#out);
    } catch (error) {
      throw problemOf(error, this.#blobAt);
    }
  }

  /**
   * Hands on what is there of a large frame, and of those behind it; returns whether that was all
   * of it.
   */
  async #passLarge(large: FrameDecoder): Promise<boolean> {
    const walker = this.#walker;
    await this.#takeWindow();
    const isWhole = walker.frameCount > 0;
    const wholeBytes = isWhole && large.takesMany ? walker.completeBytes : isWhole ? walker.frameEnd(0) : 0;
    const length = isWhole ? wholeBytes : walker.passableBytes;
    try {
      if (length > 0) await large.feed(this.#buffer.subarray(0, length));
    } catch (error) {
      throw problemOf(error, this.#largeAt);
    }
    if (isWhole) walker.cut(length);
    else walker.pass(length);
    if (length > 0) this.#isInFrame = !isWhole;
    this.#drop(length);
    const isEnough = !large.takesMany || this.#blobAt - this.#largeAt >= MIN_PROGRAM_BYTES;
    if (isWhole && isEnough) await this.#endLarge(large);
    await this.#out.room();
    return isWhole;
  }

  /**
   * Waits until there is memory for the largest window so far, and keeps it to the end of the
   * stream.
   */
  async #takeWindow(): Promise<void> {
    const { largestWindowBytes: bytes } = this.#walker;
    const { maxBytes } = this.#windows;
    if (bytes <= (this.#window?.bytes ?? MAX_SMALL_WINDOW_BYTES)) return;
    if (bytes > maxBytes) throw tooLarge(bytes, maxBytes, this.#blobAt);
    // Two that wait for more and keep what they have would wait for ever.
    this.#giveWindowBack();
    this.#window = { bytes, release: await this.#windows.acquire(bytes) };
    if (!this.#isClosed) return;
    this.#giveWindowBack();
    throw new StreamProblem('is not decoded any more', this.#blobAt);
  }

  #giveWindowBack(): void {
    this.#window?.release();
    this.#window = undefined;
  }

  async #endLarge(large: FrameDecoder): Promise<void> {
    try {
      await large.finish();
    } catch (error) {
      throw problemOf(error, this.#largeAt);
    }
    await large.close();
    this.#large = undefined;
  }

  #drop(length: number): void {
    this.#buffer.copyWithin(0, length, this.#filled);
    this.#filled -= length;
    this.#blobAt += length;
  }
}

function noFrame(blobAt: number): StreamProblem {
  return new StreamProblem(blobAt === 0 ? 'is no zstd data' : 'has bytes that are no zstd frames', blobAt);
}

/**
 * Whether up to four bytes may begin a zstd frame or a skippable one; `FrameWalker` refuses longer
 * ones.
 */
function mayBeginFrame(bytes: Uint8Array): boolean {
  const isSkippable = ((bytes[0] ?? 0) & 0xf0) === 0x50;
  const rest = isSkippable ? SKIPPABLE_MAGIC_REST : FRAME_MAGIC_REST;
  return (
    (isSkippable || (bytes[0] ?? 0x28) === 0x28) && bytes.subarray(1, 4).every((byte, i) => byte === rest[i])
  );
}

function tooLarge(windowBytes: number, maxBytes: number, blobAt: number): StreamProblem {
  const message = `has a zstd frame that needs a window of ${inMiB(windowBytes)}; at most ${inMiB(maxBytes)} are supported here`;
  return new StreamProblem(message, blobAt, 'unsupported', windowHint(windowBytes));
}

function inMiB(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

function isMalformed(error: unknown): boolean {
  return error instanceof PullError && error.code === 'metadata-malformed';
}

/** What went wrong as what is wrong with the blob, where that is the reason. */
function problemOf(error: unknown, blobAt: number): unknown {
  const reason = error instanceof Error ? error.message : String(error);
  if (error instanceof PullError && error.code === 'unsupported') {
    const message = `has zstd data that cannot be decoded here (${reason})`;
    return new StreamProblem(message, blobAt, error.code, error.hint);
  }
  if (error instanceof PullError && !isMalformed(error)) return error;
  return new StreamProblem(`has zstd data that cannot be decoded (${reason})`, blobAt);
}
