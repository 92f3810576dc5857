/** Answers that tell to wait come in waves: what comes within this time after the first is the same wave. */
const WAVE_MS = 1000;

/**
 * How many spans may be in flight to a registry: as many as there are connections, until it asks to be asked less.
 * Then half as many, and one more each time that so many have come well (additive increase, multiplicative decrease,
 * as TCP does it). The clock is passed in, in milliseconds.
 */
export class Concurrency {
  readonly #most: number;
  readonly #now: () => number;
  #limit: number;
  #good = 0;
  #waveEndsMs = Number.NEGATIVE_INFINITY;

  constructor(most: number, now: () => number) {
    this.#most = most;
    this.#limit = most;
    this.#now = now;
  }

  /** At least 1. */
  get limit(): number {
    return this.#limit;
  }

  /**
   * A request was told to wait. Those under way at the same time are told the same: only the first of a wave counts.
   * @returns whether it was the first
   */
  throttled(waitMs: number): boolean {
    const now = this.#now();
    if (now < this.#waveEndsMs) return false;
    this.#waveEndsMs = now + Math.max(WAVE_MS, waitMs);
    this.#limit = Math.max(1, Math.floor(this.#limit / 2));
    this.#good = 0;
    return true;
  }

  /** A span came. */
  good(): void {
    if (this.#limit === this.#most) return;
    this.#good += 1;
    if (this.#good < this.#limit) return;
    this.#good = 0;
    this.#limit += 1;
  }
}
