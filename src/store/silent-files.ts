/** How often who uses a store or a layout renews its lease. Many beats may fail or be late before others think it dead. */
export const BEAT_MS = 1000;

/** Silent for longer: its process may be gone. */
const SILENT_MS = 15_000;

/** A holder that lives renews its file between two looks that are so far apart, one late beat included. */
export const LOOKS_APART_MS = 2 * BEAT_MS;

/**
 * Files that are renewed while their holder lives. A holder is dead when its file is silent on two looks, a beat apart, and was not renewed
 * in between: on one look every holder seems dead after the clock was set, or after the machine has slept.
 */
export class SilentFiles {
  /** By the monotonic clock, which stands still while the machine sleeps. */
  readonly #firstLooks = new Map<string, { readonly mtimeMs: number; readonly atMs: number }>();

  /** Whether there is a file of which only another look can tell. */
  get areThere(): boolean {
    return this.#firstLooks.size > 0;
  }

  /** Whether the holder of a file is dead, that was written at `mtimeMs` and looked at at `nowMs`, by the clock of the file system. */
  isDead(path: string, mtimeMs: number, nowMs: number): boolean {
    // Both ways: a clock that was set back leaves times of the future behind.
    if (Math.abs(nowMs - mtimeMs) <= SILENT_MS) {
      this.#firstLooks.delete(path);
      return false;
    }
    const first = this.#firstLooks.get(path);
    if (first?.mtimeMs === mtimeMs) return performance.now() - first.atMs >= LOOKS_APART_MS;
    this.#firstLooks.set(path, { mtimeMs, atMs: performance.now() });
    return false;
  }
}
