import { decompress } from '@mongodb-js/zstd';
import { PullError } from '../../src/format/error.js';

/**
 * The largest decoded size of one decode call: more must be streamed, so that memory stays bounded.
 */
export const DECODE_CALL_BYTES = 32 * 2 ** 20;

/**
 * Decode calls on libuv's pool at a time in one thread: the second keeps libuv's pool busy while
 * the first one's bytes are hashed.
 */
const CALLS_AT_A_TIME = 2;

let running = 0;
const waiting: Array<() => void> = [];

/**
 * Decodes complete zstd frames in one call on libuv's pool; callers take turns in their order. The
 * caller has bounded the decoded size by walking the frames (the library has no limit of its own).
 * @throws PullError `metadata-malformed` when the bytes are no valid frames
 */
export async function decodeFrames(frames: Buffer): Promise<Buffer> {
  await takeTurn();
  try {
    return await decompress(frames);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  } finally {
    passTurn();
  }
}

function takeTurn(): Promise<void> | undefined {
  if (running < CALLS_AT_A_TIME) {
    running += 1;
    return undefined;
  }
  return new Promise((start) => {
    waiting.push(start);
  });
}

/** Passes the turn straight to the next caller: the counter changes only when none waits. */
function passTurn(): void {
  const next = waiting.shift();
  if (next === undefined) running -= 1;
  else next();
}
