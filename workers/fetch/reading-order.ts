/** A range that this thread receives. */
interface Reader {
  /** The turn of the event loop in which it last took bytes. */
  turn: number;
  /** Lets it read on; undefined while it may. */
  resume: (() => void) | undefined;
}

/**
 * Decides which of several ranges a busy thread reads from: the one that began first, as long as it has bytes. Node reads up to 2 MiB
 * of a socket before it looks at the next one, so that a connection with a large receive window would get nearly all of the
 * thread: of 16 ranges that began together on loopback the first ones ended 7 s after the others, and the hash behind them was late.
 * A later range takes what it finds, at most 64 KiB a turn, and goes on in a turn in which the earlier ones took nothing:
 * a thread that waits for the network holds up no range.
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
   * Adds a range behind those that are there. `took` is to be called when it has taken bytes; when that returns a promise, the range
   * must not read before it resolves. `end` removes the range.
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

  /** Whether a range that began earlier took bytes in this turn or the last one. */
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

  /** Lets the first range go on that is held, unless an earlier one took bytes in this turn. */
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
