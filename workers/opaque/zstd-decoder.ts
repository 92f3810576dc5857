import { withRoom } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';
import { FrameWalker, limitWindow, MAX_USUAL_WINDOW_BYTES } from '../../src/format/zstd-frame.js';
import { noteGarbage } from '../garbage.js';
import { type LargeWindows, MAX_SMALL_WINDOW_BYTES, windowHint } from './large-windows.js';
import { type DecodedQueue, type StreamDecoder, StreamProblem } from './stream-decoder.js';
import { decodeFrames, type FrameDecoder, startFrame, type ZstdEngine } from './zstd-engine.js';

/** Compressed bytes of one call: a MiB of frames at once is five times as fast as one by one. */
const PIECE_BYTES = 2 ** 20;

/**
 * Minimum of compressed bytes for one run of the program zstd, whose start takes 4 ms: a frame that
 * could be large may have a thousand bytes.
 */
const MIN_PROGRAM_BYTES = 4 * 2 ** 20;

/** The longest frame to buffer: noise is slightly longer compressed than decoded. */
const OPEN_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/** The magic numbers of a frame (28 b5 2f fd) and a skippable one (5X 2a 4d 18) without byte 0. */
const FRAME_MAGIC_REST = [0xb5, 0x2f, 0xfd] as const;
const SKIPPABLE_MAGIC_REST = [0x2a, 0x4d, 0x18] as const;

/**
 * Decodes zstd of one or many frames, skippable ones included (RFC 8878, section 3.1). Frames that
 * cannot decode to more than 32 MiB are decoded several in one call; larger ones, and skippable
 * ones above that, block by block.
 */
export class ZstdDecoder implements StreamDecoder {
  readonly #engine: ZstdEngine;
  readonly #out: DecodedQueue;
  readonly #windows: LargeWindows;
  /** Without a limit of windows, which do not count where frames are decoded in one call. */
  readonly #walker = new FrameWalker(0, Number.POSITIVE_INFINITY);
  /** Received and not yet decoded: `#buffer[0, #filled)`, from blob offset `#blobAt` on. */
  #buffer: Buffer = Buffer.allocUnsafeSlow(2 * PIECE_BYTES);
  #filled = 0;
  #blobAt = 0;
  /** Decodes the large frame at the start of the buffer, block by block. */
  #large: FrameDecoder | undefined;
  /** The blob offset of its start. */
  #largeAt = 0;
  /** Whether it has received a part of a frame that is incomplete. */
  #isInFrame = false;
  /** The memory that is reserved for a window, and what releases it. */
  #window: { readonly bytes: number; readonly release: () => void } | undefined;
  #isClosed = false;
  /** Resolves when the last piece is decoded. */
  #decoding: Promise<void> = Promise.resolve();

  constructor(engine: ZstdEngine, out: DecodedQueue, windows: LargeWindows) {
    this.#engine = engine;
    this.#out = out;
    this.#windows = windows;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#append(bytes);
    this.#walk();
    await this.#decodeReady(false);
  }

  async end(): Promise<void> {
    await this.#decodeReady(true);
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
    this.#releaseWindow();
  }

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

  async #decodeReady(all: boolean): Promise<void> {
    for (;;) {
      if (this.#large !== undefined) {
        if (!(await this.#feedLarge(this.#large))) return;
        continue;
      }
      const piece = this.#nextPiece(all);
      if (piece > 0) await this.#decode(piece);
      else if (this.#firstIsLarge()) await this.#beginLarge();
      else return;
    }
  }

  /** Returns the length of the next piece of complete frames; 0 if there is none yet. */
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
    decoded.catch(() => {}); // reported below, after the previous piece
    this.#decoding = previous.then(async () => this.#out.push(await attempt(decoded, blobAt)));
    this.#decoding.catch(() => {}); // reported by the next piece or `end`
    await previous;
    // Collected while this piece is decoded.
    noteGarbage(length);
    await this.#out.room();
  }

  /** The decoder refuses larger windows, although these frames decode to less than the usual one. */
  #limitWindows(frames: Buffer): void {
    for (let frame = 0, start = 0; start < frames.length; start = this.#walker.frameEnd(frame++))
      limitWindow(frames, start);
  }

  async #beginLarge(): Promise<void> {
    await this.#decoding;
    await this.#reserveWindow();
    this.#largeAt = this.#blobAt;
    try {
      const windows = { neededBytes: this.#walker.windowBytes, maxBytes: this.#windows.maxBytes };
      this.#large = startFrame(this.#engine, windows, this.#out);
    } catch (error) {
      throw problemOf(error, this.#blobAt);
    }
  }

  /**
   * Feeds the received bytes of a large frame, and of complete ones behind it if the decoder takes
   * them. Returns whether the frame is complete.
   */
  async #feedLarge(large: FrameDecoder): Promise<boolean> {
    const walker = this.#walker;
    await this.#reserveWindow();
    const isComplete = walker.frameCount > 0;
    const completeBytes = large.takesMany ? walker.completeBytes : isComplete ? walker.frameEnd(0) : 0;
    const length = isComplete ? completeBytes : walker.passableBytes;
    if (length > 0) {
      await attempt(large.feed(this.#buffer.subarray(0, length)), this.#largeAt);
      this.#isInFrame = !isComplete;
    }
    if (isComplete) walker.cut(length);
    else walker.pass(length);
    this.#drop(length);
    const isEnough = !large.takesMany || this.#blobAt - this.#largeAt >= MIN_PROGRAM_BYTES;
    if (isComplete && isEnough) await this.#endLarge(large);
    await this.#out.room();
    return isComplete;
  }

  /** Waits for memory for the largest window so far, and keeps it until `close`. */
  async #reserveWindow(): Promise<void> {
    const { largestWindowBytes: bytes } = this.#walker;
    const { maxBytes } = this.#windows;
    if (bytes <= (this.#window?.bytes ?? MAX_SMALL_WINDOW_BYTES)) return;
    if (bytes > maxBytes) throw tooLarge(bytes, maxBytes, this.#blobAt);
    // Two decoders that wait for more and keep theirs would wait for each other.
    this.#releaseWindow();
    this.#window = { bytes, release: await this.#windows.acquire(bytes) };
    if (!this.#isClosed) return;
    this.#releaseWindow();
    throw new StreamProblem('is not decoded any more', this.#blobAt);
  }

  #releaseWindow(): void {
    this.#window?.release();
    this.#window = undefined;
  }

  async #endLarge(large: FrameDecoder): Promise<void> {
    await attempt(large.finish(), this.#largeAt);
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

/** Whether up to four bytes may begin a frame; `FrameWalker` checks longer ones. */
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

/** Waits for `work`, and turns its error into a problem of the blob. */
async function attempt<T>(work: Promise<T>, blobAt: number): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw problemOf(error, blobAt);
  }
}

/** Returns the problem of the blob that is the reason of an error, or the error. */
function problemOf(error: unknown, blobAt: number): unknown {
  const reason = error instanceof Error ? error.message : String(error);
  if (error instanceof PullError && error.code === 'unsupported') {
    const message = `has zstd data that cannot be decoded here (${reason})`;
    return new StreamProblem(message, blobAt, error.code, error.hint);
  }
  if (error instanceof PullError && !isMalformed(error)) return error;
  return new StreamProblem(`has zstd data that cannot be decoded (${reason})`, blobAt);
}
