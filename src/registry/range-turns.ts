/** Blobs with the same first three hex digits of their digests share a turn and its endpoints. */
export const BLOB_SLOTS = 16 ** 3;

export function blobSlot(digest: string): number {
  return Number.parseInt(digest.slice('sha256:'.length, 'sha256:'.length + 3), 16);
}

/** The number of words for the turns and claims of a pull. */
export const TURN_WORDS = 2 * BLOB_SLOTS;

/** The state of a blob's turn: free, held by a range, or abandoned for this blob. */
const FREE = 0;
const HELD = 1;
const ABANDONED = 2;

/** How long a range waits for its turn, in milliseconds. */
export interface TurnLimits {
  /** Until one response begins. */
  readonly responseMs: number;
  /** For all ranges before it. */
  readonly totalMs: number;
}

/**
 * A nearby registry answers sixteen requests one after the other within `totalMs`. One whose round
 * trip is longer than `responseMs` delays the ranges of a blob by that, once: its server has sent
 * no more than some ten KB of a body that is closed at its head.
 */
const NEAR: TurnLimits = { responseMs: 30, totalMs: 100 };

/**
 * Serializes the first requests for ranges of a blob, on all threads: the next is sent when the
 * response to the one before has begun. So a server that ignores ranges starts to send one full
 * blob, and not one a connection. When a response does not begin in time, ranges of that blob wait
 * for each other no more.
 */
export class RangeTurns {
  readonly #words: Int32Array;
  readonly #limits: TurnLimits;

  /** `words`: `TURN_WORDS` words of memory that all threads share, initially zero. */
  constructor(words: Int32Array, limits = NEAR) {
    this.#words = words;
    this.#limits = limits;
  }

  /** Resolves when a range of the blob may be requested, with a function that ends its turn. */
  async acquire(digest: string): Promise<() => void> {
    const slot = blobSlot(digest);
    const { responseMs, totalMs } = this.#limits;
    const untilMs = performance.now() + totalMs;
    for (;;) {
      const before = Atomics.compareExchange(this.#words, slot, FREE, HELD);
      if (before === ABANDONED) return () => {};
      if (before === FREE) return () => this.#end(slot, FREE);
      const waitMs = Math.max(0, Math.min(responseMs, untilMs - performance.now()));
      const { value } = Atomics.waitAsync(this.#words, slot, HELD, waitMs);
      if ((await value) === 'timed-out') this.#end(slot, ABANDONED);
    }
  }

  #end(slot: number, state: number): void {
    if (Atomics.compareExchange(this.#words, slot, HELD, state) === HELD) Atomics.notify(this.#words, slot);
  }

  /** Whether the caller is the first to receive this blob in full, and keeps the response. */
  claimFullBlob(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.or(this.#words, slot, bit) & bit) === 0;
  }

  /** Whether a range of this blob has become the full blob: the others are of no use. */
  isFullBlobComing(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.load(this.#words, slot) & bit) !== 0;
  }
}

/** A claim ends other ranges for good: the last digits distinguish blobs that share a slot. */
function claimOf(digest: string): readonly [slot: number, bit: number] {
  return [BLOB_SLOTS + blobSlot(digest), 1 << (Number.parseInt(digest.slice(-2), 16) & 31)];
}
