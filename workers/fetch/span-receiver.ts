import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';
import { FrameWalker } from '../../src/format/zstd-frame.js';
import type { FetchSpanResult, FetchSpanTask, WrongBytes } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { markBad } from '../../src/store/pack-files.js';
import type { ContentRows, Region } from '../../src/store/pack-writer.js';
import { packWriter, paths, setup } from '../context.js';
import { noteGarbage } from '../garbage.js';
import { ContentChecker, type SpanChecker } from './content-checker.js';
import type { FrameDecoder } from './frame-decoder.js';
import { MemberWalker } from './member-walker.js';
import { acquireBuffer, PieceCutter, releaseBuffer, statedTarAt, type Walker } from './piece-cutter.js';
import { TocOnlyChecker } from './toc-only-checker.js';

/**
 * After this time, complete frames are decoded, however few: a slow link must not lose what it
 * received.
 */
const WAIT_MS = 500;

/** Room beside a piece's bytes for the chunk that completes it (a socket read is 64 KiB). */
const CHUNK_ROOM_BYTES = 128 * 1024;

/**
 * Tar bytes decoded in one turn of the event loop, a tenth of a second. Meanwhile the other spans
 * of the thread and the timers of their connections wait.
 */
const TURN_BYTES = DECODE_CALL_BYTES;

/** Thrown to end a stream with wrong bytes, which `SpanReceiver.wrong` describes. */
export class WrongStream extends Error {
  override readonly message = 'these are not the bytes of the layer';
}

/**
 * Receives the compressed bytes of one span, cuts them into pieces of complete frames (for gzip:
 * members), and decodes, checks and writes each piece before the next: all spans of the thread
 * decode into one buffer.
 */
export class SpanReceiver {
  wrong: WrongBytes | undefined;
  #task: FetchSpanTask;
  readonly #region: Region;
  readonly #walker: Walker;
  readonly #cutter: PieceCutter;
  readonly #checker: SpanChecker;
  readonly #blobDigest: Buffer;
  readonly #decode: FrameDecoder;
  /** Received and not yet decoded: `#buffer[0, #filled)`, from blob offset `#blobAt` on. */
  #buffer: Buffer;
  #filled = 0;
  #blobAt: number;
  /**
   * The tar offset after all written pieces. Without tar-split, it counts from the offset that is
   * allotted to the start of the span.
   */
  #tarAt: number;
  #cutMs = performance.now();
  /** The error of a piece that `tick` decoded. */
  #failure: unknown;

  constructor(task: FetchSpanTask, region: Region, decode: FrameDecoder) {
    this.#task = task;
    this.#decode = decode;
    this.#region = region;
    const { table, blobStart, blobEnd, pieceBytes } = task;
    this.#walker =
      table.compression === 'zstd' ? new FrameWalker(blobStart) : new MemberWalker(table, blobStart, blobEnd);
    this.#cutter = new PieceCutter(table, blobStart, pieceBytes, blobEnd);
    this.#checker = table.layout === 'tar-split' ? new ContentChecker(task) : new TocOnlyChecker(task);
    this.#blobDigest = digestBytes(task.blob.digest);
    this.#buffer = acquireBuffer(task.pieceBytes + CHUNK_ROOM_BYTES);
    this.#blobAt = task.blobStart;
    this.#tarAt = task.tarStart;
  }

  /** As `SpanChecker.locations`. */
  get locations(): FetchSpanResult['locations'] {
    return this.#checker.locations;
  }

  /** Tar bytes of the span that are written and good. */
  get goodTarBytes(): number {
    return Math.min(this.#tarAt, this.wrong?.tarStart ?? this.#tarAt) - this.#task.tarStart;
  }

  /**
   * Receives the next bytes. The caller must wait for the returned promise, if there is one.
   * @throws WrongStream for wrong bytes; PullError as `PackWriter.writePiece`
   */
  readonly write = (chunk: Buffer): void | Promise<void> => {
    if (this.#failure !== undefined) throw this.#failure;
    this.#append(chunk);
    try {
      this.#walker.advance(this.#buffer, this.#filled);
    } catch (error) {
      return this.#endBefore(error);
    }
    return this.#processReady(false);
  };

  /** Decodes the frames before the invalid bytes first: then it is known which frame is wrong. */
  async #endBefore(error: unknown): Promise<never> {
    await this.#processReady(true);
    throw this.#asWrong(error);
  }

  /** Decodes all pieces that are complete; with `all`, all complete frames. */
  #processReady(all: boolean): void | Promise<void> {
    const turnEnd = this.#tarAt + TURN_BYTES;
    while (this.#tarAt < turnEnd) {
      const piece = this.#nextPiece(all);
      if (piece === 0) return undefined;
      this.#process(piece);
    }
    return nextTurn().then(() => this.#processReady(all));
  }

  /**
   * Decodes what remains after the last bytes. `end` is the end of a span that was stopped.
   * @throws as `write`
   */
  async finish(end?: Pick<FetchSpanTask, 'blobEnd' | 'tarEnd'>): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#task = { ...this.#task, ...end };
    await this.#processReady(true);
    if (this.#filled > 0) throw this.#wrongHere('do not end where a frame ends');
    const { table, blobEnd, tarEnd } = this.#task;
    if (table.layout === 'tar-split' && this.#tarAt !== tarEnd) throw this.#wrongHere('decode to too little');
    const wrong = this.#checker.finish(blobEnd);
    if (wrong !== undefined) this.#dropAll(wrong);
  }

  /** Decodes frames that have waited too long; see `watch`. */
  tick(nowMs: number): void {
    if (this.#failure !== undefined || nowMs - this.#cutMs < WAIT_MS || this.wrong !== undefined) return;
    try {
      const piece = this.#nextPiece(true);
      if (piece > 0) this.#process(piece);
    } catch (error) {
      this.#failure = error; // thrown by the next `write` or `finish`
    }
  }

  /** Releases the buffer. */
  close(): void {
    releaseBuffer(this.#buffer);
  }

  #append(chunk: Buffer): void {
    const needed = this.#filled + chunk.length;
    if (needed > this.#buffer.length) {
      const { completeBytes, openFrameBytes } = this.#walker;
      // The walker of a zstd frame knows only the length of the next block.
      const known = completeBytes + openFrameBytes + CHUNK_ROOM_BYTES;
      const larger = acquireBuffer(Math.max(needed, known, 2 * this.#buffer.length));
      this.#buffer.copy(larger, 0, 0, this.#filled);
      releaseBuffer(this.#buffer);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#filled);
    this.#filled = needed;
  }

  #nextPiece(all: boolean): number {
    return this.#cutter.next(this.#walker, this.#blobAt, all);
  }

  /**
   * Decodes the first `bytes` bytes, checks and writes the result, and removes them from the
   * buffer.
   */
  #process(bytes: number): void {
    const maxBytes = this.#maxBytes(bytes);
    this.#walker.cut(bytes);
    this.#cutMs = performance.now();
    const blobStart = this.#blobAt;
    this.#blobAt += bytes;
    try {
      const started = threadClock.start();
      const decoded = this.#decode(this.#buffer.subarray(0, bytes), maxBytes);
      threadClock.end('decode', started, decoded.length);
      this.#checkAndWrite(decoded, blobStart, bytes);
    } catch (error) {
      throw this.#asWrong(error, blobStart);
    }
    this.#buffer.copyWithin(0, bytes, this.#filled);
    this.#filled -= bytes;
    // The chunks from the socket, which have been copied.
    noteGarbage(bytes);
  }

  /** The maximum decoded size of the complete frames in the first `bytes` bytes of the buffer. */
  #maxBytes(bytes: number): number {
    let frame = 0;
    while (this.#walker.frameEnd(frame) < bytes) frame += 1;
    return this.#walker.boundUpTo(frame);
  }

  /** Checks and writes the decoded bytes of a piece. Does not keep `bytes`. */
  #checkAndWrite(bytes: Buffer, blobStart: number, blobLength: number): void {
    const { table, tarEnd } = this.#task;
    const split = table.layout === 'tar-split';
    if (split) this.#checkLength(bytes.length, blobStart, blobStart + blobLength);
    else if (this.#tarAt + bytes.length > tarEnd) throw this.#wrongHere('decode to too much', blobStart);
    const started = threadClock.start();
    const { contents, hashedBytes, wrong } = this.#checker.check(
      bytes,
      this.#tarAt,
      this.#packAt(this.#tarAt),
    );
    if (hashedBytes > 0) threadClock.end('hash', started, hashedBytes);
    if (wrong === undefined) this.#write(bytes, blobStart, blobLength, contents);
    else if (split) this.#keepGoodPart(bytes, blobStart, contents, wrong);
    else this.#dropAll(wrong);
  }

  #write(bytes: Buffer, blobStart: number, blobLength: number, contents: ContentRows): void {
    packWriter().writePiece(this.#region, {
      raw: false,
      bytes,
      packOffset: this.#packAt(this.#tarAt),
      blobDigest: this.#blobDigest,
      blobStart,
      blobLength,
      tarStart: this.#tarAt,
      contents,
    });
    count(setup.counters, 'written', bytes.length);
    this.#tarAt += bytes.length;
  }

  /** Keeps what precedes the wrong content, and marks what was written of that content as bad. */
  #keepGoodPart(bytes: Buffer, blobStart: number, contents: ContentRows, wrong: WrongBytes): never {
    const goodBytes = wrong.tarStart - this.#tarAt;
    const goodBlobBytes = wrong.blobStart - blobStart;
    if (goodBytes > 0 && goodBlobBytes <= 0) {
      // By the metadata, the content comes from before this piece: none of the piece can be
      // trusted.
      this.wrong = { ...wrong, blobStart, tarStart: this.#tarAt };
      throw new WrongStream();
    }
    if (goodBytes > 0) {
      this.#write(bytes.subarray(0, goodBytes), blobStart, goodBlobBytes, contents);
    } else if (goodBytes < 0) {
      markBad(paths, this.#region.pack, [{ offset: this.#packAt(wrong.tarStart), lengthBytes: -goodBytes }]);
    }
    this.wrong = wrong;
    throw new WrongStream();
  }

  /**
   * Without tar-split, the blob offset of a wrong content is unknown: the full span is fetched
   * again.
   */
  #dropAll(wrong: WrongBytes): never {
    const writtenBytes = this.#tarAt - this.#task.tarStart;
    if (writtenBytes > 0) {
      markBad(paths, this.#region.pack, [{ offset: this.#region.start, lengthBytes: writtenBytes }]);
    }
    this.wrong = wrong;
    throw new WrongStream();
  }

  /** The pack offset of a tar offset: the span has its own region of the pack. */
  #packAt(tarAt: number): number {
    return this.#region.start + (tarAt - this.#task.tarStart);
  }

  #checkLength(length: number, blobStart: number, blobEnd: number): void {
    const { table, tarEnd } = this.#task;
    const stated = blobEnd === this.#task.blobEnd ? tarEnd : statedTarAt(table, blobEnd);
    const got = this.#tarAt + length;
    if (got === stated || (stated === undefined && got <= tarEnd)) return;
    const expected = (stated ?? tarEnd) - this.#tarAt;
    throw this.#wrongHere(`decode to ${length} bytes, the metadata says ${expected}`, blobStart);
  }

  /** Turns an error about invalid bytes into one about wrong bytes, which are fetched again. */
  #asWrong(error: unknown, blobStart = this.#blobAt): unknown {
    if (!(error instanceof PullError) || error.code !== 'metadata-malformed') return error;
    const what = this.#task.table.compression === 'zstd' ? 'zstd frames' : 'gzip members';
    return this.#wrongHere(`are no complete ${what} (${error.message})`, blobStart);
  }

  /** Reports everything from `blobStart` on as wrong; without tar-split, the full span. */
  #wrongHere(problem: string, blobStart = this.#blobAt): WrongStream {
    const { blobEnd, table, blobStart: spanStart, tarStart } = this.#task;
    const wrong = { content: -1, problem: `bytes ${blobStart} to ${blobEnd} of the blob ${problem}` };
    if (table.layout !== 'tar-split') this.#dropAll({ ...wrong, blobStart: spanStart, tarStart });
    this.wrong = { ...wrong, blobStart, tarStart: this.#tarAt };
    return new WrongStream();
  }
}
