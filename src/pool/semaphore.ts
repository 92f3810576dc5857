/** A counting semaphore, first come, first served. */
export class Semaphore {
  readonly #permits: number;
  #inUse = 0;
  readonly #waiting: Array<{ readonly count: number; readonly start: () => void }> = [];

  constructor(permits: number) {
    this.#permits = permits;
  }

  /** Waits until so many permits are free; until all are for more than there are. */
  acquire(count: number): Promise<void> {
    return new Promise((start) => {
      this.#waiting.push({ count, start });
      this.#advance();
    });
  }

  release(count: number): void {
    this.#inUse -= count;
    this.#advance();
  }

  /** Runs `action` with so many permits, which are released when it settles. */
  async with<T>(count: number, action: () => Promise<T>): Promise<T> {
    await this.acquire(count);
    try {
      return await action();
    } finally {
      this.release(count);
    }
  }

  #advance(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#inUse > 0 && this.#inUse + next.count > this.#permits) return;
      this.#waiting.shift();
      this.#inUse += next.count;
      next.start();
    }
  }
}
