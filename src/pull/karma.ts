/**
 * Decides when a network is hopeless, by one number: every received byte adds 1, every failed
 * request subtracts 1, and it decays by the factor e each `tauMs`. When a failure takes it below
 * zero, the pull gives up. So steady progress, however slow, allows more retries, a stall uses them
 * up, and a failure before the first byte is final. docs/karma.md has figures.
 *
 * Called by `KarmaRetryPolicy`, which decides about each retry. The clock is passed in, in
 * milliseconds, and can be paused while no request is in flight (a server has asked to wait, for
 * example).
 */
export class Karma {
  readonly #tauMs: number;
  #karma = 0;
  #updatedMs: number;
  #running = true;

  constructor(tauMs: number, nowMs: number) {
    this.#tauMs = tauMs;
    this.#updatedMs = nowMs;
  }

  received(bytes: number, nowMs: number): void {
    this.#decay(nowMs);
    this.#karma += bytes;
  }

  /** Counts a network failure. Returns true to give up, with this failure as the reason. */
  miss(nowMs: number): boolean {
    this.#decay(nowMs);
    this.#karma -= 1;
    return this.#karma < 0;
  }

  /** Stops the clock until `resume`. */
  pause(nowMs: number): void {
    this.#decay(nowMs);
    this.#running = false;
  }

  resume(nowMs: number): void {
    this.#decay(nowMs);
    this.#running = true;
  }

  #decay(nowMs: number): void {
    if (this.#running) this.#karma *= Math.exp(-(nowMs - this.#updatedMs) / this.#tauMs);
    this.#updatedMs = nowMs;
  }
}
