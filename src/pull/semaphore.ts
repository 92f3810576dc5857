/** So many at a time, in the order in which they asked. */
export class Semaphore {
  #free: number;
  readonly #waiting: Array<() => void> = [];

  constructor(atATime: number) {
    this.#free = atATime;
  }

  /** Runs `action` when it is its turn; the turn ends with it. */
  async take<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
