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

interface Waiting {
  readonly priority: number;
  readonly start: () => void;
}

let running = 0;
const waiting: Waiting[] = [];

/**
 * Decodes whole zstd frames in one call on libuv's pool. Of several callers the one with the lowest
 * `priority` goes first, so that earlier spans finish earlier and the hash behind them keeps up.
 * The caller has bounded the decoded size by walking the frames (the library has no limit of its
 * own).
 * @throws PullError `metadata-malformed` when the bytes are no valid frames
 */
export async function decodeFrames(frames: Buffer, priority: number): Promise<Buffer> {
  await takeTurn(priority);
  try {
    return await decompress(frames);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  } finally {
    passTurn();
  }
}

function takeTurn(priority: number): Promise<void> | undefined {
  if (running < CALLS_AT_A_TIME) {
    running += 1;
    return undefined;
  }
  return new Promise((start) => {
    waiting.push({ priority, start });
  });
}

/** A turn goes straight to the next in line, never back to the counter while somebody waits. */
function passTurn(): void {
  if (waiting.length === 0) {
    running -= 1;
    return;
  }
  let first = 0;
  for (let i = 1; i < waiting.length; i++) {
    if (waiting[i]!.priority < waiting[first]!.priority) first = i;
  }
  waiting.splice(first, 1)[0]!.start();
}
