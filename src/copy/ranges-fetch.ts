import { type BlobRange, cutRanges } from '../format/arrays.js';
import { fromFailure, inLayer } from '../format/error.js';
import type { BlobFile } from '../pool/messages.js';
import type { RangeControl } from '../pool/shared-memory.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { Fetcher, FetchJob } from '../pull/fetcher.js';
import type { FetchFigures } from '../pull/layer.js';
import type { BlobSource } from '../registry/range-client.js';

interface Options {
  readonly blob: BlobSource;
  readonly fetcher: Fetcher;
  /** Row of the fetcher's figures. */
  readonly layer: number;
  /** Left out, the bytes are dropped. */
  readonly into?: BlobFile;
  /** Called before each range is fetched. */
  readonly onBegin?: () => void;
  /** Called when a range has arrived. The range keeps its connection until this resolves. */
  readonly onArrived?: (range: BlobRange, isLast: boolean) => Promise<void>;
}

/** One attempt to fetch ranges of a blob, without decoding. */
export class RangesFetch {
  /** The first of the endpoints that sent bytes; undefined when nothing was fetched. */
  sender: number | undefined;
  readonly #options: Options;
  /** Ranges in flight. */
  #running = 0;
  /** Whether all ranges have begun. */
  #isLast = false;
  #failure: unknown;
  /** Whether the full blob has arrived instead of a range. */
  #isFull = false;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Fetches these ranges, each taken from the iterator when it can begin.
   * @returns whether the server sent the full blob instead
   * @throws PullError as `fetchRange` and `storageError`, after the last write
   */
  async run(ranges: Iterable<BlobRange>): Promise<{ readonly isFull: boolean }> {
    const upcoming = ranges[Symbol.iterator]();
    const first = upcoming.next();
    if (first.done !== true) {
      await new Promise<void>((ended) => this.#options.fetcher.add(this.#jobs(first.value, upcoming, ended)));
    }
    if (this.#failure !== undefined && !this.#isFull) throw inLayer(this.#failure, this.#options.blob.digest);
    return { isFull: this.#isFull };
  }

  /**
   * Calls `ended` when the last range has arrived, or when none is in flight after a failure or a
   * full blob.
   */
  *#jobs(first: BlobRange, upcoming: Iterator<BlobRange>, ended: () => void): Generator<FetchJob, void> {
    for (let range: BlobRange | undefined = first; range !== undefined && !this.#isOver; ) {
      const next = upcoming.next();
      this.#isLast = next.done === true;
      this.#running += 1;
      yield this.#job(range, ended);
      range = next.done === true ? undefined : next.value;
    }
  }

  #job(range: BlobRange, ended: () => void, splits = 0): FetchJob {
    const done = () => {
      this.#running -= 1;
      if (this.#running === 0 && (this.#isLast || this.#isOver)) ended();
    };
    return {
      work: { layer: this.#options.layer, dropped: false },
      sizeBytes: range.end - range.start,
      splits,
      run: async (pool, control, cost) => {
        await this.#fetch(pool, range, control, {
          cost,
          stopped: (remaining) => this.#addFirst(remaining, ended, splits + 1),
        });
        done();
      },
      failed: (error) => {
        this.#failure ??= error;
        done();
      },
    };
  }

  /** Fetches the remainder of a stopped range, in parts. */
  #addFirst(remaining: BlobRange, ended: () => void, splits: number): void {
    const { fetcher } = this.#options;
    for (const range of cutRanges([remaining], fetcher.partBytes(remaining.end - remaining.start))) {
      this.#running += 1;
      fetcher.addFirst(this.#job(range, ended, splits));
    }
  }

  async #fetch(
    pool: TaskRunner,
    { start, end }: BlobRange,
    control: RangeControl,
    on: { readonly cost: (figures: FetchFigures) => void; readonly stopped: (remaining: BlobRange) => void },
  ): Promise<void> {
    const { blob, into, onBegin, onArrived } = this.#options;
    onBegin?.();
    const result = await pool.run({ task: 'copy-range', blob, start, end, ...(into && { into }), control });
    on.cost(result);
    if (result.failure !== undefined) throw fromFailure(result.failure);
    this.sender = Math.min(this.sender ?? result.sender, result.sender);
    if (result.isFullBlob) {
      this.#isFull = true;
      return;
    }
    const { stoppedAt = end } = result;
    if (stoppedAt < end && !this.#isOver) on.stopped({ start: stoppedAt, end });
    const isLast = this.#isLast && this.#running === 1 && !this.#isOver;
    await onArrived?.({ start, end: stoppedAt }, isLast);
  }

  get #isOver(): boolean {
    return this.#failure !== undefined || this.#isFull;
  }
}
