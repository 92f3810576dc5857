import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import { FrameWalker } from '../../src/format/zstd-frame.js';
import { count } from '../../src/pool/counters.js';
import type { FetchSpanResult, FetchSpanTask, WrongBytes } from '../../src/pool/messages.js';
import { markBad } from '../../src/store/bad-runs.js';
import type { ContentRows, Region } from '../../src/store/pack-writer.js';
import { packWriter, paths, setup } from '../context.js';
import { noteGarbage } from '../garbage.js';
import { type CheckedPiece, ContentChecker, type SpanChecker } from './content-checker.js';
import { DECODE_CALL_BYTES } from './decode.js';
import type { FrameDecoder } from './frame-decoder.js';
import { MemberWalker } from './member-walker.js';
import { releaseBuffer, PieceCutter, statedTarAt, acquireBuffer, type Walker } from './piece-cutter.js';
import { TocOnlyChecker } from './toc-only-checker.js';

/** Frames that have waited so long are decoded, however few: a slow link must not lose what it received. */
const WAIT_MS = 500;

/** Room beside a piece's bytes for the chunk that completes it (a socket read is 64 KiB). */
const CHUNK_ROOM_BYTES = 128 * 1024;

/** Tar bytes decoded in one turn of the event loop, a tenth of a second: other spans of the thread, and the timers of their connections, wait. */
const TURN_BYTES = DECODE_CALL_BYTES;

/** Thrown to end a stream whose bytes are wrong; `SpanReceiver.wrong` says what is. */
export class WrongStream extends Error {
  override readonly message = 'these are not the bytes of the layer';
}

/**
 * Takes the compressed bytes of one span as they arrive, cuts them into pieces of whole frames (of gzip: members), and decodes, checks and
 * writes each before it takes more: what a piece decodes to is in the one buffer that all spans of the thread use.
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
  /** Received and not yet cut off: `#buffer[0, #filled)`, which begins at `#blobAt` of the blob. */
  #buffer: Buffer;
  #filled = 0;
  #blobAt: number;
  /**
   * Where the tar is at after all pieces written. Without tar-split it counts from
   * what is allotted to the span's start.
   */
  #tarAt: number;
  #cutMs = performance.now();
  /** What a piece failed with that was decoded because it had waited. */
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

  /** As `SpanChecker.places`. */
  get places(): FetchSpanResult['places'] {
    return this.#checker.places;
  }

  /** Tar bytes of the span that are written and checked. */
  get goodTarBytes(): number {
    return Math.min(this.#tarAt, this.wrong?.tarStart ?? this.#tarAt) - this.#task.tarStart;
  }

  /** The next bytes; a returned promise asks to wait. Throws when the stream is of no further use. */
  readonly write = (chunk: Buffer): void | Promise<void> => {
    this.#requireGood();
    this.#append(chunk);
    try {
      this.#walker.advance(this.#buffer, this.#filled);
    } catch (error) {
      return this.#endBefore(error);
    }
    return this.#processNext();
  };

  /** Frames that are whole before bytes that are none count: what is wrong is then known to the frame. */
  async #endBefore(error: unknown): Promise<never> {
    await this.#decodeWhole();
    throw this.#asWrong(error);
  }

  /** One chunk can complete several pieces: none of them waits for the next chunk. */
  #processNext(): void | Promise<void> {
    const turnEnd = this.#tarAt + TURN_BYTES;
    while (this.#tarAt < turnEnd) {
      const piece = this.#nextPiece(false);
      if (piece === 0) return undefined;
      this.#process(piece);
    }
    return nextTurn().then(() => this.#processNext());
  }

  #requireGood(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Everything has come: decodes the rest. `end`: where the span ends that was stopped. */
  async finish(end?: Pick<FetchSpanTask, 'blobEnd' | 'tarEnd'>): Promise<void> {
    this.#task = { ...this.#task, ...end };
    await this.#decodeWhole();
    if (this.#filled > 0) throw this.#wrongHere('do not end where a frame ends');
    const { table, blobEnd, tarEnd } = this.#task;
    if (table.layout === 'tar-split' && this.#tarAt !== tarEnd) throw this.#wrongHere('decode to too little');
    const wrong = this.#checker.finish(blobEnd);
    if (wrong !== undefined) this.#dropAll(wrong);
  }

  /** Decodes all frames that are whole. */
  async #decodeWhole(): Promise<void> {
    this.#requireGood();
    let turnEnd = this.#tarAt + TURN_BYTES;
    for (let piece = this.#nextPiece(true); piece > 0; piece = this.#nextPiece(true)) {
      this.#process(piece);
      if (this.#tarAt < turnEnd) continue;
      await nextTurn();
      turnEnd = this.#tarAt + TURN_BYTES;
    }
  }

  /** Decodes frames that have waited too long. Called from time to time. */
  tick(nowMs: number): void {
    if (this.#failure !== undefined || nowMs - this.#cutMs < WAIT_MS || this.wrong !== undefined) return;
    try {
      const piece = this.#nextPiece(true);
      if (piece > 0) this.#process(piece);
    } catch (error) {
      this.#failure = error; // heard of at the next bytes, or at the end
    }
  }

  /** Ends the use of its buffer. */
  close(): void {
    releaseBuffer(this.#buffer);
  }

  #append(chunk: Buffer): void {
    const needed = this.#filled + chunk.length;
    if (needed > this.#buffer.length) {
      const { completeBytes, openFrameBytes } = this.#walker;
      // Of a gzip member the length is known, of a zstd frame only that of the next block.
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

  /** Decodes the first `bytes` bytes, checks and writes what they decode to, and drops them. */
  #process(bytes: number): void {
    const mostBytes = this.#mostBytes(bytes);
    this.#walker.cut(bytes);
    this.#cutMs = performance.now();
    const blobStart = this.#blobAt;
    this.#blobAt += bytes;
    this.#checkAndWrite(this.#decodePiece(bytes, blobStart, mostBytes), blobStart, bytes);
    this.#buffer.copyWithin(0, bytes, this.#filled);
    this.#filled -= bytes;
    // Reads of the socket: what they brought has been copied.
    noteGarbage(bytes);
  }

  #decodePiece(bytes: number, blobStart: number, mostBytes: number): Buffer {
    try {
      return this.#decode(this.#buffer.subarray(0, bytes), mostBytes);
    } catch (error) {
      throw this.#asWrong(error, blobStart);
    }
  }

  /** What the first `bytes` bytes of the buffer, whole frames, decode to at most. */
  #mostBytes(bytes: number): number {
    let frame = 0;
    while (this.#walker.frameEnd(frame) < bytes) frame += 1;
    return this.#walker.boundUpTo(frame);
  }

  /** Checks what a piece decoded to and writes it; `bytes` are not kept. */
  #checkAndWrite(bytes: Buffer, blobStart: number, blobLength: number): void {
    const { table, tarEnd } = this.#task;
    const split = table.layout === 'tar-split';
    if (split) this.#checkLength(bytes.length, blobStart, blobStart + blobLength);
    else if (this.#tarAt + bytes.length > tarEnd) throw this.#wrongHere('decode to too much', blobStart);
    const { contents, wrong } = this.#check(bytes, blobStart);
    if (wrong === undefined) this.#write(bytes, blobStart, blobLength, contents);
    else if (split) this.#keepGoodPart(bytes, blobStart, contents, wrong);
    else this.#dropAll(wrong);
  }

  #check(bytes: Buffer, blobStart: number): CheckedPiece {
    try {
      return this.#checker.check(bytes, this.#tarAt, this.#packAt(this.#tarAt));
    } catch (error) {
      throw this.#asWrong(error, blobStart);
    }
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

  /** What stands before the wrong content is kept; what was written of that content itself is marked. */
  #keepGoodPart(bytes: Buffer, blobStart: number, contents: ContentRows, wrong: WrongBytes): never {
    const goodBytes = wrong.tarStart - this.#tarAt;
    const goodBlobBytes = wrong.blobStart - blobStart;
    if (goodBytes > 0 && goodBlobBytes <= 0) {
      // The metadata has it at a place of the blob that other bytes came from: nothing of the piece can be trusted.
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

  /** Without tar-split a wrong content has no place in the blob that is known: the span is fetched again as a whole. */
  #dropAll(wrong: WrongBytes): never {
    const writtenBytes = this.#tarAt - this.#task.tarStart;
    if (writtenBytes > 0) {
      markBad(paths, this.#region.pack, [{ offset: this.#region.start, lengthBytes: writtenBytes }]);
    }
    this.wrong = wrong;
    throw new WrongStream();
  }

  /** Where bytes of the tar lie in the pack: the span has a region of its own, in order. */
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

  /** Bytes that cannot be decoded count as wrong ones: they are fetched once more. */
  #asWrong(error: unknown, blobStart = this.#blobAt): unknown {
    if (!(error instanceof PullError) || error.code !== 'metadata-malformed') return error;
    const what = this.#task.table.compression === 'zstd' ? 'zstd frames' : 'gzip members';
    return this.#wrongHere(`are no whole ${what} (${error.message})`, blobStart);
  }

  /** Everything from `blobStart` on is wrong, where the tar is at what is written; without tar-split, all of the span. */
  #wrongHere(problem: string, blobStart = this.#blobAt): WrongStream {
    const { blobEnd, table, blobStart: spanStart, tarStart } = this.#task;
    const wrong = { content: -1, problem: `bytes ${blobStart} to ${blobEnd} of the blob ${problem}` };
    if (table.layout !== 'tar-split') this.#dropAll({ ...wrong, blobStart: spanStart, tarStart });
    this.wrong = { ...wrong, blobStart, tarStart: this.#tarAt };
    return new WrongStream();
  }
}
