import { MessageChannel } from 'node:worker_threads';
import { type BlobRange, cutRanges, joinRanges } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer } from '../format/error.js';
import type { RangeControl } from '../pool/shared-memory.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { Fetcher, FetchJob } from '../pull/fetcher.js';
import type { FetchFigures } from '../pull/layer.js';
import type { BlobSource } from '../registry/range-client.js';
import type { BlobLocation, WritableBlob } from './copy-blobs.js';

interface FillOptions {
  readonly blob: BlobSource;
  readonly location: WritableBlob;
  readonly fetcher: Fetcher;
  /** Row of the fetcher's figures. */
  readonly layer: number;
  /** Threads that hash. */
  readonly support: TaskRunner;
}

/**
 * One attempt to fetch the missing ranges of a blob to its location, and to hash it behind its
 * front.
 */
export class BlobFetch {
  readonly #options: FillOptions;
  /** The first of the endpoints that sent bytes; undefined when nothing was fetched. */
  sender: number | undefined;
  readonly #front: Front;
  /** Created with the first range, so that no more files are open than ranges are in flight. */
  #hash: Hash | undefined;
  /** Ranges in flight. */
  #running = 0;
  /** Whether all ranges have begun. */
  #isLast = false;
  #failure: unknown;
  /** Whether the full blob has arrived instead of a range, over bytes that were hashed before. */
  #isFull = false;

  constructor(options: FillOptions) {
    this.#options = options;
    this.#front = new Front(options.location.written);
  }

  /**
   * Fetches these ranges, each taken from the iterator when it can begin.
   * @returns the digest of the blob
   * @throws PullError as `fetchRange` and `storageError`, after the last write to the location
   */
  async run(ranges: Iterable<BlobRange>): Promise<Digest> {
    const upcoming = ranges[Symbol.iterator]();
    const first = upcoming.next();
    if (first.done !== true) {
      await new Promise<void>((ended) => this.#options.fetcher.add(this.#jobs(first.value, upcoming, ended)));
    }
    if (this.#failure === undefined && !this.#isFull) return this.#begin().end();
    this.#hash?.drop();
    const { support, location } = this.#options;
    if (this.#isFull) return hashBlob(support, location, location.sizeBytes).end();
    throw inLayer(this.#failure, this.#options.blob.digest);
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

  /**
   * Resolves, and frees its connection, when the range has arrived; for the last one, when all is
   * hashed.
   */
  async #fetch(
    pool: TaskRunner,
    { start, end }: BlobRange,
    control: RangeControl,
    on: { readonly cost: (figures: FetchFigures) => void; readonly stopped: (remaining: BlobRange) => void },
  ): Promise<void> {
    const { blob, location } = this.#options;
    const hash = this.#begin();
    const { file, start: position, journal } = location;
    const result = await pool.run({ task: 'copy-range', blob, start, end, file, position, journal, control });
    on.cost(result);
    if (result.failure !== undefined) throw fromFailure(result.failure);
    this.sender = Math.min(this.sender ?? result.sender, result.sender);
    if (result.isWhole) {
      this.#isFull = true;
      return;
    }
    const { stoppedAt = end } = result;
    if (stoppedAt < end && !this.#isOver) on.stopped({ start: stoppedAt, end });
    if (this.#front.add({ start, end: stoppedAt })) hash.reach(this.#front.end);
    if (this.#isLast && this.#running === 1 && !this.#isOver) await hash.end();
  }

  get #isOver(): boolean {
    return this.#failure !== undefined || this.#isFull;
  }

  #begin(): Hash {
    this.#hash ??= hashBlob(this.#options.support, this.#options.location, this.#front.end);
    return this.#hash;
  }
}

/** A hash in progress. */
interface Hash {
  /** Hashes up to this position. */
  reach(end: number): void;
  /** Returns the digest. */
  end(): Promise<Digest>;
  /** Ends the hash without its digest. */
  drop(): void;
}

/** Starts to hash a blob, up to `end` at first. */
export function hashBlob(support: TaskRunner, location: BlobLocation | WritableBlob, end: number): Hash {
  const { path, start } = location;
  const { port1, port2 } = new MessageChannel();
  const file = 'file' in location ? location.file : undefined;
  const task = { task: 'hash-file', path, position: start, port: port2, ...(file && { file }) } as const;
  const result = support.run(task, [port2]).finally(() => port1.close());
  result.catch(() => {}); // `end` throws it
  const reach = (position: number | null) => port1.postMessage(position);
  reach(end);
  return {
    reach,
    end: async () => {
      reach(null);
      return (await result).digest;
    },
    drop: () => reach(null),
  };
}

/** Where the first gap of a blob begins. */
class Front {
  end = 0;
  #beyond: readonly BlobRange[];

  constructor(written: readonly BlobRange[]) {
    this.#beyond = written;
    this.#advance();
  }

  /** Adds a range. Returns whether the front moved. */
  add(range: BlobRange): boolean {
    const before = this.end;
    this.#beyond = [...this.#beyond, range];
    this.#advance();
    return this.end > before;
  }

  #advance(): void {
    const [first, ...others] = joinRanges(this.#beyond);
    if (first === undefined || first.start > this.end) return;
    this.end = first.end;
    this.#beyond = others;
  }
}
