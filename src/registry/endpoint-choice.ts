/** How long an endpoint that failed is left alone, doubled by each failure after the first: a connect timeout takes 5 s. */
const AVOID_MS = 10_000;

/** Ten minutes: no pull waits longer for a mirror to come back. */
const MOST_AVOID_MS = 600_000;

/**
 * Which endpoint of a blob one thread asks, by place in the list: the first that neither failed lately nor lacks the
 * blob. Time is passed in, in milliseconds.
 */
export class EndpointChoice {
  readonly #count: number;
  /** By endpoint: failures in a row, and until when it is left alone. */
  readonly #failures: number[];
  readonly #avoidedUntil: number[];
  readonly #lacking = new Set<string>();

  constructor(count: number) {
    this.#count = count;
    this.#failures = new Array<number>(count).fill(0);
    this.#avoidedUntil = new Array<number>(count).fill(0);
  }

  /** The endpoint to ask for this blob now, but none of `tried`; undefined when none is left. */
  next(digest: string, tried: ReadonlySet<number>, now: number): number | undefined {
    const left = [...this.#failures.keys()].filter((i) => !tried.has(i));
    const having = left.filter((i) => !this.#lacking.has(`${i} ${digest}`));
    return having.find((i) => this.#avoidedUntil[i]! <= now) ?? having[0] ?? left[0];
  }

  /** The network or the server failed: other blobs go elsewhere for a while, too. */
  failed(endpoint: number, now: number): void {
    const failures = this.#failures[endpoint]!;
    if (this.#avoidedUntil[endpoint]! > now && failures > 0) return; // requests that were under way at the same time
    this.#failures[endpoint] = failures + 1;
    this.#avoidedUntil[endpoint] = now + Math.min(MOST_AVOID_MS, AVOID_MS * 2 ** failures);
  }

  succeeded(endpoint: number): void {
    this.#failures[endpoint] = 0;
  }

  /** The endpoint refused this blob, or answered wrongly. */
  lacks(endpoint: number, digest: string): void {
    if (this.#count > 1) this.#lacking.add(`${endpoint} ${digest}`);
  }
}
