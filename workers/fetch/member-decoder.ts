import { gunzipSync } from 'node:zlib';
import { PullError } from '../../src/format/error.js';
import { freeBuffer } from '../garbage.js';
import { DECODE_CALL_BYTES } from './decode.js';
import type { FrameDecoder } from './frame-decoder.js';

/** The least that node:zlib takes as the size of its output blocks. */
const MIN_BLOCK_BYTES = 64;

/** Smaller blocks share memory with other buffers. */
const MIN_FREED_BYTES = 64 * 1024;

/** What the last call returned. */
let last: Buffer<ArrayBuffer> | undefined;

/**
 * Decodes whole gzip members (RFC 1952) as a `FrameDecoder` does: the bytes are good until the next call in this thread, which frees them. Left
 * to V8, of which each call keeps a block until a full collection, a pull of noise in eStargz takes 70 MB more. zlib takes zeros behind a member
 * for padding, and passes over all behind them: the caller notices what is missing then.
 * @throws PullError `metadata-malformed` when the bytes are no valid members or decode to more
 */
export const decodeMembers: FrameDecoder = (members, mostBytes) => {
  if (last !== undefined && last.buffer.byteLength >= MIN_FREED_BYTES) freeBuffer(last);
  last = undefined;
  // zlib makes a second block as soon as the first is full: one byte more is never written.
  const chunkSize = Math.min(DECODE_CALL_BYTES, Math.max(MIN_BLOCK_BYTES, mostBytes)) + 1;
  try {
    last = gunzipSync(members, { maxOutputLength: Math.max(1, mostBytes), chunkSize });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  }
  return last;
};
