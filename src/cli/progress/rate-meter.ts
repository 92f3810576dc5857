/** Weight of the past: what is older than three of these hardly counts. Shorter, and the time left jumps about. */
const TAU_MS = 3000;

/**
 * Bytes a second, smoothed with exponential weights over uneven steps. Divided by the sum of the weights so far, so
 * that the first second shows its rate and not a share of it. Time is passed in.
 */
export class RateMeter {
  #bytes: number;
  #now: number;
  #weighted = 0;
  #weights = 0;

  constructor(bytes: number, now: number) {
    this.#bytes = bytes;
    this.#now = now;
  }

  /** Takes note of how many bytes there are by `now` (milliseconds). */
  update(bytes: number, now: number): void {
    const passedMs = now - this.#now;
    if (passedMs <= 0) return;
    const fade = Math.exp(-passedMs / TAU_MS);
    const rate = (Math.max(0, bytes - this.#bytes) / passedMs) * 1000;
    this.#weighted = this.#weighted * fade + rate * (1 - fade);
    this.#weights = this.#weights * fade + (1 - fade);
    this.#bytes = bytes;
    this.#now = now;
  }

  /** 0 until something was noted. */
  get bytesPerSecond(): number {
    return this.#weights === 0 ? 0 : this.#weighted / this.#weights;
  }
}
