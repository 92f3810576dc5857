import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_USUAL_WINDOW_BYTES } from '../../src/format/zstd-frame.js';
import { usableMemoryBytes } from '../../src/pool/cores.js';

/** The largest window that zstd itself decodes (ZSTD_WINDOWLOG_MAX is 31): `zstd --long=31`. */
const MAX_WINDOW_BYTES = 2 ** 31;

/** The share of the memory that one window may take: the other parts of the pull must fit too. */
const WINDOW_SHARE = 1 / 4;

/** Between attempts to acquire memory. Hardly any pull has two large windows. */
const RETRY_MS = 100;

/** The total of the large windows. A larger one must be alone. */
const MAX_TOTAL_MIB = 256;

/** Windows up to this need not wait: `zstd -19` uses them, and a decoder takes as much besides. */
export const MAX_SMALL_WINDOW_BYTES = 8 * 2 ** 20;

/** The memory for large windows, which all threads share. */
export interface LargeWindows {
  readonly maxBytes: number;
  /** Resolves when there is memory for a window, with the function that releases it. */
  acquire(windowBytes: number): Promise<() => void>;
}

/** `usedMib` has the MiB in use, shared by all threads. */
export function largeWindows(usedMib: Uint32Array): LargeWindows {
  const allowedBytes = usableMemoryBytes() * WINDOW_SHARE;
  return {
    maxBytes: Math.max(MAX_USUAL_WINDOW_BYTES, Math.min(MAX_WINDOW_BYTES, allowedBytes)),
    acquire: async (windowBytes) => {
      const mib = Math.ceil(windowBytes / 2 ** 20);
      while (!tryAcquire(usedMib, mib)) await sleep(RETRY_MS);
      return () => Atomics.sub(usedMib, 0, mib);
    },
  };
}

function tryAcquire(usedMib: Uint32Array, mib: number): boolean {
  const before = Atomics.load(usedMib, 0);
  if (before > 0 && before + mib > MAX_TOTAL_MIB) return false;
  return Atomics.compareExchange(usedMib, 0, before, before + mib) === before;
}

/** Returns what the user can do about a window that is too large. */
export function windowHint(windowBytes: number): string {
  const push = 'push the layer again with a smaller window, such as that of zstd --long=27';
  if (windowBytes > MAX_WINDOW_BYTES) return push;
  const memoryMiB = Math.ceil(windowBytes / WINDOW_SHARE / 2 ** 20);
  return `pull where zpull may use ${memoryMiB} MiB of memory (a window may have a quarter of it), or ${push}`;
}
