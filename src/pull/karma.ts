/**
 * When a bad network is hopeless. Every received byte is worth +1, every miss −1, and what is left fades by the
 * factor e each `tau`. Below zero after a miss, the pull gives up: steady progress, however slow, buys patience,
 * a stall spends it, and a failure before the first byte is fatal at once.
 *
 * Time is passed in (milliseconds of any monotonic clock). While nobody is asking (a server told us to wait, say)
 * the clock stands still.
 */
export class Karma {
  readonly #tauMs: number;
  #karma = 0;
  #updated: number;
  #running = true;

  constructor(tauMs: number, now: number) {
    this.#tauMs = tauMs;
    this.#updated = now;
  }

  received(bytes: number, now: number): void {
    this.#fade(now);
    this.#karma += bytes;
  }

  /** One network failure. True: give up, with this failure as the cause. */
  miss(now: number): boolean {
    this.#fade(now);
    this.#karma -= 1;
    return this.#karma < 0;
  }

  /** The clock stands still until `resume`. */
  pause(now: number): void {
    this.#fade(now);
    this.#running = false;
  }

  resume(now: number): void {
    this.#fade(now);
    this.#running = true;
  }

  #fade(now: number): void {
    if (this.#running) this.#karma *= Math.exp(-(now - this.#updated) / this.#tauMs);
    this.#updated = now;
  }
}
