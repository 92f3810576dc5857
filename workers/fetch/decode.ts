import { promisify } from 'node:util';
import { gunzip, gunzipSync } from 'node:zlib';
import { decompress } from '@mongodb-js/zstd';
import { PullError } from '../../src/format/error.js';

/** The largest decoded size of one decode call: more must be streamed, so that memory stays bounded. */
export const DECODE_CALL_BYTES = 32 * 2 ** 20;

/** Decode calls on libuv's pool at a time in one thread: the second keeps libuv's pool busy while the first one's bytes are hashed. */
const CALLS_AT_A_TIME = 2;

/**
 * Members up to this are decoded in this thread, as a thread can be stopped soon enough then: node:zlib's way through libuv's
 * pool takes 8 % more CPU time and 20 MB more memory over 588 MB.
 */
const HERE_BYTES = 4 * 2 ** 20;

/** The least that node:zlib takes. */
const LEAST_CHUNK_BYTES = 64;

interface Waiting {
  readonly priority: number;
  readonly start: () => void;
}

let running = 0;
const waiting: Waiting[] = [];

/**
 * Decodes whole zstd frames in one call on libuv's pool. Of several callers the one with the lowest `priority`
 * goes first, so that earlier spans finish earlier and the hash behind them keeps up.
 * The caller has bounded the decoded size by walking the frames (the library has no limit of its own).
 * @throws PullError `metadata-malformed` when the bytes are no valid frames
 */
export function decodeFrames(frames: Buffer, priority: number): Promise<Buffer> {
  return decode(() => decompress(frames), priority);
}

const gunzipAll = promisify(gunzip);

/**
 * The same for whole gzip members that decode to at most `mostBytes`. zlib takes zeros behind a member for padding, and
 * passes over all behind them: what is missing then is for the caller to notice.
 * @throws PullError `metadata-malformed` when the bytes are no valid members or decode to more
 */
export function decodeMembers(members: Buffer, mostBytes: number, priority: number): Promise<Buffer> {
  // One block of output where zlib would make many and join them.
  const chunkSize = Math.min(DECODE_CALL_BYTES, Math.max(LEAST_CHUNK_BYTES, mostBytes));
  const options = { maxOutputLength: Math.max(1, mostBytes), chunkSize };
  const isSmall = mostBytes <= HERE_BYTES;
  return decode(async () => (isSmall ? gunzipSync(members, options) : gunzipAll(members, options)), priority);
}

async function decode(call: () => Promise<Buffer>, priority: number): Promise<Buffer> {
  await takeTurn(priority);
  try {
    return await call();
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
