import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Transform } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import * as zlib from 'node:zlib';
import { decompress } from '@mongodb-js/zstd';
import { Decompress } from 'fzstd';
import { PullError } from '../../src/format/error.js';
import { Semaphore } from '../../src/pool/semaphore.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { type DecodedQueue, ZLIB_CHUNK_BYTES, ZlibStream } from './stream-decoder.js';

/**
 * Decode calls on libuv's pool at a time in one thread: the second keeps libuv's pool busy while
 * the first one's bytes are hashed.
 */
const calls = new Semaphore(2);

/**
 * Decodes complete zstd frames in one call on libuv's pool, in the order of the calls. The caller
 * has bounded the decoded size by walking the frames (the library has no limit of its own).
 * @throws PullError `metadata-malformed` when the bytes are no valid frames
 */
export async function decodeFrames(frames: Buffer): Promise<Buffer> {
  try {
    return await calls.with(1, () => threadClock.during('decode', 'work', () => decompress(frames)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  }
}

/** Decodes a large zstd frame block by block. Decoded bytes go to a `DecodedQueue`. */
export interface FrameDecoder {
  /**
   * Decodes the next bytes of the frame, which must not change before this resolves. Rejects if
   * they are malformed.
   */
  feed(bytes: Buffer): Promise<unknown>;
  /** Resolves when the frame, which is complete, is decoded. Rejects if it is malformed. */
  finish(): Promise<void>;
  close(): void | Promise<void>;
  /** Whether it also decodes the frames that follow. */
  readonly takesMany: boolean;
}

/**
 * What can decode a frame block by block, the best first: node:zlib since Node 22.15; the program
 * zstd, whose two pipes cost as much again as decoding; fzstd, which is JavaScript (77 MB/s).
 */
export type ZstdEngine = 'node' | 'program' | 'script';

/** The part of node:zlib that the types of Node 20 lack. */
type NewerZlib = Partial<{
  createZstdDecompress(options: {
    chunkSize: number;
    params: Readonly<Record<number, number>>;
  }): Transform & { readonly bytesWritten: number };
}>;

const { createZstdDecompress } = zlib as NewerZlib;

/** The decoder's parameter for the maximum window, as a power of 2 (zstd.h, ZSTD_d_windowLogMax). */
const WINDOW_LOG_MAX = 100;

/** Returns the best engine here. Searches PATH at each call, which is at most one a layer. */
export function bestZstdEngine(): ZstdEngine {
  if (createZstdDecompress !== undefined) return 'node';
  return isOnPath('zstd') ? 'program' : 'script';
}

/** Whether a program of this name can be run. */
export function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The window that a frame needs, and the maximum of any frame. */
interface WindowBytes {
  readonly neededBytes: number;
  readonly maxBytes: number;
}

/** Returns a decoder for one frame.
 * @throws PullError `unsupported` for a window that the engine cannot have */
export function startFrame(
  engine: ZstdEngine,
  { neededBytes, maxBytes }: WindowBytes,
  out: DecodedQueue,
): FrameDecoder {
  if (engine === 'program') return new ProgramFrame(maxBytes, out);
  if (engine === 'script') return new ScriptFrame(neededBytes, out);
  if (createZstdDecompress === undefined) throw new Error('this Node has no zstd');
  const params = { [WINDOW_LOG_MAX]: Math.ceil(Math.log2(maxBytes)) };
  const stream = new ZlibStream(createZstdDecompress({ chunkSize: ZLIB_CHUNK_BYTES, params }), out);
  return Object.assign(stream, { takesMany: false });
}

/** A pipe returns 64 KiB at a time, and a block of a frame can be one byte. */
const GATHERED_BYTES = 512 * 1024;

/** Gathers decoded bytes into larger buffers. */
class Gatherer {
  readonly #out: DecodedQueue;
  #buffer = Buffer.alloc(0);
  #filled = 0;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  add(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > GATHERED_BYTES) this.flush();
    if (this.#filled === 0) this.#buffer = Buffer.allocUnsafeSlow(GATHERED_BYTES);
    this.#buffer.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  flush(): void {
    if (this.#filled === 0) return;
    this.#out.push(this.#buffer.subarray(0, this.#filled));
    this.#filled = 0;
  }
}

/** The maximum length of the program's error message: one sentence. */
const MAX_STDERR_CHARS = 500;

/**
 * Decodes a frame with the program zstd. When this thread is ended, the pipe breaks, and the
 * program ends too.
 */
export class ProgramFrame implements FrameDecoder {
  readonly takesMany = true;
  readonly #decoded: Gatherer;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #closed: Promise<void>;
  #stderr = '';
  #failure: Error | undefined;

  /** `maxWindowBytes`: the largest window that a frame may ask for. */
  constructor(maxWindowBytes: number, out: DecodedQueue) {
    this.#decoded = new Gatherer(out);
    const memory = `--memory=${Math.ceil(maxWindowBytes / 2 ** 10)}KiB`;
    this.#child = spawn('zstd', ['-dcq', memory], { stdio: 'pipe' });
    const { stdin, stdout, stderr } = this.#child;
    stdin.on('error', () => {}); // a broken pipe: the program's exit has the reason
    out.pour(stdout, (chunk) => this.#decoded.add(chunk));
    stderr.on('data', (text: Buffer) => {
      this.#stderr = (this.#stderr + text).slice(0, MAX_STDERR_CHARS);
    });
    this.#child.on('error', (error) => {
      this.#failure = error;
    });
    this.#closed = new Promise((resolve) => this.#child.on('close', () => resolve()));
  }

  async feed(bytes: Buffer): Promise<void> {
    const write = () =>
      new Promise<boolean>((resolve) => this.#child.stdin.write(bytes, (error) => resolve(error == null)));
    if (!(await threadClock.during('decode', 'work', write))) await this.#exit();
  }

  async finish(): Promise<void> {
    this.#child.stdin.end();
    await threadClock.during('decode', 'work', () => this.#exit());
    this.#decoded.flush();
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }

  /**
   * Waits for the program's exit. Rejects with its message about the frame; with PullError
   * `internal` if it could not run.
   */
  async #exit(): Promise<void> {
    await this.#closed;
    const { exitCode, signalCode } = this.#child;
    if (this.#failure !== undefined || signalCode !== null) {
      const why = this.#failure?.message ?? `it was ended by ${signalCode}`;
      throw new PullError('internal', `the program zstd failed: ${why}`, {
        hint: 'check that zstd --version works, or use Node 22.15 or later, which needs no such program',
      });
    }
    if (exitCode !== 0) throw new Error(this.#stderr.trim() || `zstd ended with the exit code ${exitCode}`);
  }
}

/**
 * fzstd reads offsets of at most 25 bits beyond their first one: with a window of 64 MiB or more it
 * would return wrong bytes.
 */
const MAX_SCRIPT_WINDOW_BYTES = 2 ** 26 - 1;

/**
 * fzstd moves the whole window for each block. With the largest window and the usual blocks of 128
 * KiB, that is 512 bytes for each decoded one; tiny blocks would take hours. Beyond that ratio, the
 * frames of a blob may together move 4 GiB, which takes a second.
 */
const MAX_MOVED_RATIO = 1024;
const FREE_MOVED_BYTES = 4 * 2 ** 30;

/** The work for the frames of one blob so far. */
interface Work {
  decodedBytes: number;
  movedBytes: number;
}

const works = new WeakMap<DecodedQueue, Work>();

/**
 * Compressed bytes of one call: blocks of 4 bytes can each decode to 128 KiB, all of which is
 * in memory when it returns.
 */
const CALL_BYTES = 512;

/** Compressed bytes decoded before other tasks of this thread may run: some milliseconds. */
const BYTES_A_TURN = 64 * 1024;

/** Decodes a frame with fzstd, which ignores its checksum: the DiffID proves the layer. */
export class ScriptFrame implements FrameDecoder {
  readonly takesMany = false;
  readonly #out: DecodedQueue;
  readonly #decoded: Gatherer;
  readonly #decompress: Decompress;
  readonly #work: Work;

  constructor(windowBytes: number, out: DecodedQueue) {
    if (windowBytes > MAX_SCRIPT_WINDOW_BYTES) {
      throw new PullError(
        'unsupported',
        `a frame needs a window of ${windowBytes / 2 ** 20} MiB, which takes the program zstd, or Node 22.15 or later`,
        { hint: 'install the program zstd, or run zpull with Node 22.15 or later' },
      );
    }
    this.#out = out;
    this.#decoded = new Gatherer(out);
    const work = works.get(out) ?? { decodedBytes: 0, movedBytes: 0 };
    works.set(out, work);
    this.#work = work;
    this.#decompress = new Decompress((bytes) => {
      work.movedBytes += windowBytes;
      work.decodedBytes += bytes.length;
      this.#decoded.add(bytes);
    });
  }

  async feed(bytes: Buffer): Promise<void> {
    const copy = new Uint8Array(bytes); // fzstd keeps the start of an incomplete block
    for (let at = 0; at < copy.length; at += CALL_BYTES) {
      const started = threadClock.start();
      this.#decompress.push(copy.subarray(at, at + CALL_BYTES));
      threadClock.end('decode', started, 0);
      const { movedBytes, decodedBytes } = this.#work;
      if (movedBytes > FREE_MOVED_BYTES + decodedBytes * MAX_MOVED_RATIO) {
        throw new PullError(
          'unsupported',
          'its blocks are so small that only the program zstd, or Node 22.15 or later, can decode them',
        );
      }
      if (at % BYTES_A_TURN === 0) await nextTurn();
      await this.#out.room();
    }
  }

  /** All blocks of the frame are complete, and so decoded. */
  async finish(): Promise<void> {
    this.#decoded.flush();
  }

  close(): void {}
}
