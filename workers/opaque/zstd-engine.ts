import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import type { DecodedQueue } from './decoded-queue.js';
import { ZLIB_CHUNK_BYTES, ZlibStream } from './zlib-stream.js';
import { isOnPath, ProgramFrame } from './zstd-program.js';
import { ScriptFrame } from './zstd-script.js';

/** Decodes a zstd frame as it comes; what it decodes goes to an DecodedQueue. */
export interface FrameDecoder {
  /**
   * Takes the next bytes of the frame, which must stay as they are until this resolves. Rejects
   * when they are damaged.
   */
  feed(bytes: Buffer): Promise<unknown>;
  /** The frame is whole: resolves when all of it is decoded. Rejects when it is damaged. */
  finish(): Promise<void>;
  close(): void | Promise<void>;
  /** Whether it takes the frames that follow, too. */
  readonly takesMany: boolean;
}

/**
 * What can decode a frame as a stream, the best first: node:zlib since Node 22.15, the program zstd
 * (for 1 GiB of tar it costs about as much again for the way through two pipes), fzstd, which is
 * JavaScript (77 MB/s).
 */
export type ZstdEngine = 'node' | 'program' | 'script';

/** As much of node:zlib as the types of Node 20 do not know yet. */
type NewerZlib = Partial<{
  createZstdDecompress(options: {
    chunkSize: number;
    params: Readonly<Record<number, number>>;
  }): Transform & { readonly bytesWritten: number };
}>;

const { createZstdDecompress } = zlib as NewerZlib;

/**
 * The decoder's parameter for the most bits that offsets may have (zstd.h, ZSTD_d_windowLogMax).
 */
const WINDOW_LOG_MAX = 100;

/** The best engine here; looked for anew at each call, which is one a layer at the most. */
export function bestZstdEngine(): ZstdEngine {
  if (createZstdDecompress !== undefined) return 'node';
  return isOnPath('zstd') ? 'program' : 'script';
}

/** The window that a frame needs, and the most that any frame may have. */
export interface WindowBytes {
  readonly neededBytes: number;
  readonly maxBytes: number;
}

/** A decoder for one frame.
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
