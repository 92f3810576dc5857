/** Lets somebody end a range before its end, while its bytes come. Its connection is closed, and the range goes on over another up to `end`. */
export class RangeStop {
  /** Where the range ended, or will end, because it was asked to; undefined when it was not. */
  end: number | undefined;
  readonly #endFor: (next: number) => number;
  #abort: (() => void) | undefined;

  /** `endFor`: where the range may end when all bytes before `next` have come, at or behind that. */
  constructor(endFor: (next: number) => number = (next) => next) {
    this.#endFor = endFor;
  }

  /** Ends the range, if bytes are coming that can be asked for in parts. */
  ask(): void {
    this.#abort?.();
  }

  /** `abort` ends the request that is in flight; undefined when none is. */
  inFlight(abort: (() => void) | undefined): void {
    this.#abort = abort;
  }

  /** The request was ended by `ask`. Returns where the range ends now. */
  ended(next: number, end: number): number {
    this.end = Math.min(end, Math.max(next, this.#endFor(next)));
    return this.end;
  }
}
