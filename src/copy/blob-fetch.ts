import { MessageChannel } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer } from '../format/error.js';
import { type BlobRange, cutRanges, joinRanges } from '../format/ranges.js';
import type { BlobSource } from '../pool/messages.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { Fetcher, FetchJob, RangeTurn } from '../pull/fetcher.js';
import type { FetchFigures } from '../pull/layer.js';
import type { BlobLocation, WritableBlob } from './copy-blobs.js';

interface FillOptions {
  readonly blob: BlobSource;
  readonly place: WritableBlob;
  readonly fetcher: Fetcher;
  /** Row of the fetcher's figures. */
  readonly layer: number;
  /** Threads that hash. */
  readonly support: TaskRunner;
}

/** One attempt to fetch what a blob lacks straight to its place; it is hashed behind the front of what is there. */
export class BlobFetch {
  readonly #options: FillOptions;
  /** The first of the endpoints that sent some of it; undefined when nothing was fetched. */
  sender: number | undefined;
  readonly #front: Front;
  /** Begun with the first range: no more files are open than ranges are in flight. */
  #hash: Hash | undefined;
  /** Ranges that were begun and are not there. */
  #running = 0;
  /** All ranges were begun. */
  #isLast = false;
  #failure: unknown;
  /** The whole blob has come instead of a range, over what was there and was hashed before. */
  #isWhole = false;

  constructor(options: FillOptions) {
    this.#options = options;
    this.#front = new Front(options.place.written);
  }

  /**
   * Fetches these ranges, of which each is asked for when it can be begun.
   * @returns the digest of what is there then
   * @throws PullError as `fetchRange`, as `storageError`; nothing is written to the place any more then
   */
  async run(ranges: Iterable<BlobRange>): Promise<Digest> {
    const upcoming = ranges[Symbol.iterator]();
    const first = upcoming.next();
    if (first.done !== true) {
      await new Promise<void>((ended) => this.#options.fetcher.add(this.#jobs(first.value, upcoming, ended)));
    }
    if (this.#failure === undefined && !this.#isWhole) return this.#begin().end();
    this.#hash?.drop();
    const { support, place } = this.#options;
    if (this.#isWhole) return hashBlob(support, place, place.sizeBytes).end();
    throw inLayer(this.#failure, this.#options.blob.digest);
  }

  /** `ended` is called when the last range is there, or nothing runs after one has failed or become the whole: what waits is of no use then. */
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
      run: async (pool, turn, cost) => {
        await this.#fetch(pool, range, turn, {
          cost,
          stopped: (rest) => this.#addFirst(rest, ended, splits + 1),
        });
        done();
      },
      failed: (error) => {
        this.#failure ??= error;
        done();
      },
    };
  }

  /** Fetches the rest of a range that was stopped, in parts. */
  #addFirst(rest: BlobRange, ended: () => void, splits: number): void {
    const { fetcher } = this.#options;
    for (const range of cutRanges([rest], fetcher.partBytes(rest.end - rest.start))) {
      this.#running += 1;
      fetcher.addFirst(this.#job(range, ended, splits));
    }
  }

  /** Its connection is free again when the range is there; that of the last one when all is hashed. */
  async #fetch(
    pool: TaskRunner,
    { start, end }: BlobRange,
    { control }: RangeTurn,
    tell: { readonly cost: (figures: FetchFigures) => void; readonly stopped: (rest: BlobRange) => void },
  ): Promise<void> {
    const { blob, place } = this.#options;
    const hash = this.#begin();
    const { file, start: position, journal } = place;
    const result = await pool.run({ task: 'copy-range', blob, start, end, file, position, journal, control });
    tell.cost(result);
    if (result.failure !== undefined) throw fromFailure(result.failure);
    this.sender = Math.min(this.sender ?? result.sender, result.sender);
    if (result.isWhole) {
      this.#isWhole = true;
      return;
    }
    const { stoppedAt = end } = result;
    if (stoppedAt < end && !this.#isOver) tell.stopped({ start: stoppedAt, end });
    if (this.#front.add({ start, end: stoppedAt })) hash.reach(this.#front.end);
    if (this.#isLast && this.#running === 1 && !this.#isOver) await hash.end();
  }

  get #isOver(): boolean {
    return this.#failure !== undefined || this.#isWhole;
  }

  #begin(): Hash {
    this.#hash ??= hashBlob(this.#options.support, this.#options.place, this.#front.end);
    return this.#hash;
  }
}

/** A hash under way. */
interface Hash {
  /** The blob is there up to this position. */
  reach(end: number): void;
  /** Its digest; nothing more comes. */
  end(): Promise<Digest>;
  /** Nobody asks for it any more. */
  drop(): void;
}

/** Begins to hash what is there of a blob, up to `end` at first. */
export function hashBlob(support: TaskRunner, place: BlobLocation | WritableBlob, end: number): Hash {
  const { path, start } = place;
  const { port1, port2 } = new MessageChannel();
  const file = 'file' in place ? place.file : undefined;
  const task = { task: 'hash-file', path, position: start, port: port2, ...(file && { file }) } as const;
  const result = support.run(task, [port2]).finally(() => port1.close());
  result.catch(() => {}); // heard of at its end
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

/** How far a blob is there without a gap. */
class Front {
  end = 0;
  #beyond: readonly BlobRange[];

  constructor(written: readonly BlobRange[]) {
    this.#beyond = written;
    this.#advance();
  }

  /** Adds a range; whether the front moved. */
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
