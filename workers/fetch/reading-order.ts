/** A range that this thread receives. */
interface Reader {
  /** The turn of the event loop in which it last received bytes. */
  turn: number;
  /** Ends its wait; undefined if it does not wait. */
  resume: (() => void) | undefined;
}

/**
 * Decides which of several ranges a busy thread reads from: the one that began first, as long as it
 * receives bytes. Node reads up to 2 MiB from a socket before it turns to the next one, so that a
 * connection with a large receive window would get nearly all of the thread: of 16 ranges that
 * began together on loopback, the first ones ended 7 s after the others, and delayed the hash of
 * the layer. A later range may read once, at most 64 KiB, and then waits for a turn in which no
 * earlier one received bytes: a thread that waits for the network delays no range.
 */
export class ReadingOrder {
  readonly #afterTurn: (action: () => void) => void;
  /** In the order in which they began. */
  readonly #readers = new Set<Reader>();
  #turn = 0;
  #isWatching = false;

  /** `afterTurn` calls back when the current turn of the event loop is over. */
  constructor(afterTurn: (action: () => void) => void = setImmediate) {
    this.#afterTurn = afterTurn;
  }

  /**
   * Adds a range after the others. Call `received` when it has received bytes: it must not read
   * again before the returned promise resolves, if there is one. `end` removes the range.
   */
  begin(): { received(): Promise<void> | undefined; end(): void } {
    const reader: Reader = { turn: -1, resume: undefined };
    this.#readers.add(reader);
    return {
      received: () => {
        reader.turn = this.#turn;
        this.#watch();
        return this.#isBehindBusy(reader) ? this.#hold(reader) : undefined;
      },
      end: () => this.#readers.delete(reader),
    };
  }

  /** Whether an earlier range received bytes in this turn or the last one. */
  #isBehindBusy(reader: Reader): boolean {
    for (const other of this.#readers) {
      if (other === reader) return false;
      if (other.turn >= this.#turn - 1) return true;
    }
    return false;
  }

  #hold(reader: Reader): Promise<void> {
    return new Promise((resolve) => {
      reader.resume = resolve;
    });
  }

  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    this.#afterTurn(() => {
      this.#isWatching = false;
      this.#endTurn();
    });
  }

  /** Resumes the first range that waits, unless an earlier one received bytes in this turn. */
  #endTurn(): void {
    const ended = this.#turn++;
    let isDecided = false;
    let mustWait = false;
    for (const reader of this.#readers) {
      if (reader.turn === ended) isDecided = true;
      if (reader.resume === undefined) continue;
      if (isDecided) {
        mustWait = true;
        continue;
      }
      isDecided = true;
      reader.resume();
      reader.resume = undefined;
    }
    if (mustWait) this.#watch();
  }
}
