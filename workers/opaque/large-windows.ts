import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_USUAL_WINDOW_BYTES } from '../../src/format/zstd-frame.js';
import { usableMemoryBytes } from '../../src/pool/cores.js';

/** The largest window that zstd itself decodes (ZSTD_WINDOWLOG_MAX is 31): what `zstd --long=31` asks for. */
const MAX_WINDOW_BYTES = 2 ** 31;

/** The share of the memory that one window may take: a decoder has the whole window in memory, and what else a pull needs must fit too. */
const WINDOW_SHARE = 1 / 4;

/** How often a stream looks whether another one's large window is gone, in milliseconds. It happens in hardly any pull. */
const LOOK_AGAIN_MS = 100;

/** What the windows of all streams may take together. One that is larger is alone. */
const MAX_TOTAL_MIB = 256;

/** Windows up to this need not wait: they are those of `zstd -19`, and as small as what else a stream takes. */
export const MAX_SMALL_WINDOW_BYTES = 8 * 2 ** 20;

/** How large windows may be, and memory for those of all threads. */
export interface LargeWindows {
  readonly maxBytes: number;
  /** Resolves when there is memory for a window of so many bytes, with what gives it back. */
  acquire(windowBytes: number): Promise<() => void>;
}

/** `usedMib`: the MiB of windows that are in use; all threads share it. */
export function largeWindows(usedMib: Uint32Array): LargeWindows {
  const allowedBytes = usableMemoryBytes() * WINDOW_SHARE;
  return {
    maxBytes: Math.max(MAX_USUAL_WINDOW_BYTES, Math.min(MAX_WINDOW_BYTES, allowedBytes)),
    acquire: async (windowBytes) => {
      const mib = Math.ceil(windowBytes / 2 ** 20);
      while (!tryAcquire(usedMib, mib)) await sleep(LOOK_AGAIN_MS);
      return () => Atomics.sub(usedMib, 0, mib);
    },
  };
}

function tryAcquire(usedMib: Uint32Array, mib: number): boolean {
  const before = Atomics.load(usedMib, 0);
  if (before > 0 && before + mib > MAX_TOTAL_MIB) return false;
  return Atomics.compareExchange(usedMib, 0, before, before + mib) === before;
}

/** What there is to do about a window that is too large. */
export function windowHint(windowBytes: number): string {
  const push = 'push the layer again with a smaller window, such as that of zstd --long=27';
  if (windowBytes > MAX_WINDOW_BYTES) return push;
  const memoryMiB = Math.ceil(windowBytes / WINDOW_SHARE / 2 ** 20);
  return `pull where zpull may use ${memoryMiB} MiB of memory (a window may have a quarter of it), or ${push}`;
}
