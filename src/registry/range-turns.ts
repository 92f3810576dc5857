/** Blobs are told apart by the first three hex digits of their digests: two with the same share a turn. */
const SLOTS = 16 ** 3;

/** How many words hold the turns and claims of a pull. */
export const TURN_WORDS = 2 * SLOTS;

/** The state of a blob's turn: free, taken by a range, or given up for this blob. */
const FREE = 0;
const TAKEN = 1;
const OVER = 2;

/** How long a range waits for its turn, in milliseconds. */
export interface TurnLimits {
  /** For one response to begin. */
  readonly responseMs: number;
  /** For all of those before it. */
  readonly totalMs: number;
}

/**
 * A registry that is near answers sixteen requests one after the other within the longer time. One that is farther away than the
 * shorter one delays the ranges of a blob by that, once: its server has sent no more than some ten KB of a body that is closed at its head.
 */
const NEAR: TurnLimits = { responseMs: 30, totalMs: 100 };

/**
 * What the ranges of a blob agree on, on all threads. They are asked for one after the other: the next when the response to the one
 * before has begun. A server that begins to answer with whole blobs then sends one, and not one for each connection. Where a response
 * does not begin in time, ranges of that blob wait for each other no more.
 */
export class RangeTurns {
  readonly #words: Int32Array;
  readonly #limits: TurnLimits;

  /** `words`: `TURN_WORDS` of memory that all threads share, zero at first. */
  constructor(words: Int32Array, limits = NEAR) {
    this.#words = words;
    this.#limits = limits;
  }

  /** Resolves when a range of the blob may be asked for, with what ends its turn. */
  async acquire(digest: string): Promise<() => void> {
    const slot = slotOf(digest);
    const { responseMs, totalMs } = this.#limits;
    const untilMs = performance.now() + totalMs;
    for (;;) {
      const before = Atomics.compareExchange(this.#words, slot, FREE, TAKEN);
      if (before === OVER) return () => {};
      if (before === FREE) return () => this.#end(slot, FREE);
      const waitMs = Math.max(0, Math.min(responseMs, untilMs - performance.now()));
      const { value } = Atomics.waitAsync(this.#words, slot, TAKEN, waitMs);
      if ((await value) === 'timed-out') this.#end(slot, OVER);
    }
  }

  #end(slot: number, state: number): void {
    if (Atomics.compareExchange(this.#words, slot, TAKEN, state) === TAKEN) Atomics.notify(this.#words, slot);
  }

  /** Whether the caller is the first to be sent this blob as a whole instead of a part: it takes that. */
  claimFullBlob(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.or(this.#words, slot, bit) & bit) === 0;
  }

  /** Whether a range of this blob has become the whole: the others are of no use. */
  isFullBlobComing(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.load(this.#words, slot) & bit) !== 0;
  }
}

function slotOf(digest: string): number {
  return Number.parseInt(digest.slice('sha256:'.length, 'sha256:'.length + 3), 16);
}

/** A claim ends a range for good: the last digits tell blobs with one slot apart. */
function claimOf(digest: string): readonly [slot: number, bit: number] {
  return [SLOTS + slotOf(digest), 1 << (Number.parseInt(digest.slice(-2), 16) & 31)];
}
