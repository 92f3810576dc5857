import { totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_USUAL_WINDOW_BYTES } from '../src/format/zstd-frame.js';

/** The largest window that zstd itself decodes (ZSTD_WINDOWLOG_MAX is 31): what `zstd --long=31` asks for. */
const MAX_WINDOW_BYTES = 2 ** 31;

/** The share of the memory that one window may take: a decoder has the whole window in memory, and what else a pull needs must fit too. */
const WINDOW_SHARE = 1 / 4;

/** How often a stream looks whether another one's large window is gone, in milliseconds. It happens in hardly any pull. */
const LOOK_AGAIN_MS = 100;

/** Windows above what `zstd -d` takes without being asked: how large they may be, and one stream of all threads at a time that has them. */
export interface LargeWindows {
  readonly maxBytes: number;
  /** Resolves when no other stream decodes with large windows any more, with what ends this one's turn. */
  take(): Promise<() => void>;
}

/** `lock`: 1 while a stream has its turn; all threads share it. */
export function largeWindows(lock: Uint32Array): LargeWindows {
  const allowedBytes = Math.min(totalmem(), constrainedBytes()) * WINDOW_SHARE;
  return {
    maxBytes: Math.max(MAX_USUAL_WINDOW_BYTES, Math.min(MAX_WINDOW_BYTES, allowedBytes)),
    take: async () => {
      while (Atomics.compareExchange(lock, 0, 0, 1) !== 0) await sleep(LOOK_AGAIN_MS);
      return () => Atomics.store(lock, 0, 0);
    },
  };
}

/** What there is to do about a window that is too large. */
export function windowHint(windowBytes: number): string {
  const push = 'push the layer again with a smaller window, such as that of zstd --long=27';
  if (windowBytes > MAX_WINDOW_BYTES) return push;
  const memoryMiB = Math.ceil(windowBytes / WINDOW_SHARE / 2 ** 20);
  return `pull where zpull may use ${memoryMiB} MiB of memory (a window may have a quarter of it), or ${push}`;
}

/** The limit of a container; 0 and absurd numbers mean none. */
function constrainedBytes(): number {
  return process.constrainedMemory() || Number.POSITIVE_INFINITY;
}
