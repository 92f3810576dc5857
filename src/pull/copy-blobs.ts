import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { inLayer, PullError } from '../format/error.js';
import { type BlobRange, joinRanges, lengthOf, missingRanges } from '../plan/missing.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import type { PullContext } from './context.js';
import type { CopySource } from './copy-source.js';
import type { BlobPlace, CopyTarget } from './copy-target.js';

/**
 * What one request fetches. Ranges that are not whole are lost with a killed process; at 20 MB/s a connection and 50 ms
 * away 8 MiB spend a tenth of their time waiting.
 */
const MOST_RANGE_BYTES = 8 * 2 ** 20;
const LEAST_RANGE_BYTES = 2 ** 20;
/** Ranges a connection in small copies, so that all of them end together. */
const RANGES_PER_CONNECTION = 4;

/** A copy that fetches less than this uses one thread. */
const ONE_WORKER_BYTES = 8 * 2 ** 20;

/** A hash under way: positions go in by the port. */
interface Hash {
  readonly port: MessagePort;
  end(): Promise<Digest>;
}

export interface CopyFigures {
  fetchedBytes: number;
  requests: number;
  reusedBytes: number;
  resumedBytes: number;
}

/** Brings all blobs to their places, each proven before it gets its name. */
export async function copyBlobs(options: {
  readonly context: PullContext;
  readonly target: CopyTarget;
  readonly source: CopySource;
  readonly urlOf: (digest: Digest) => string;
}): Promise<CopyFigures> {
  const copying = new BlobCopies(options.context, options.target, options.urlOf);
  return options.context.stop.guard(copying.run(options.source));
}

/** The blobs of one copy while they fill up. */
class BlobCopies {
  readonly #context: PullContext;
  readonly #target: CopyTarget;
  readonly #urlOf: (digest: Digest) => string;
  readonly #figures: CopyFigures = { fetchedBytes: 0, requests: 0, reusedBytes: 0, resumedBytes: 0 };
  #pool: Promise<WorkerPool> | undefined;
  #running = 0;
  readonly #waiting: Array<() => Promise<void>> = [];

  constructor(context: PullContext, target: CopyTarget, urlOf: (digest: Digest) => string) {
    this.#context = context;
    this.#target = target;
    this.#urlOf = urlOf;
  }

  async run({ blobs, layers }: CopySource): Promise<CopyFigures> {
    const missing = await this.#missing(blobs);
    const ranges = this.#cut(missing);
    const fetchBytes = ranges.reduce((sum, each) => sum + lengthOf(each), 0);
    const { workers } = this.#context.settings;
    this.#context.emit({
      event: 'planned',
      totalBytes: fetchBytes,
      fetchBytes,
      reuseBytes: this.#figures.reusedBytes,
      resumeBytes: this.#figures.resumedBytes,
      requests: ranges.reduce((sum, each) => sum + each.length, 0),
    });
    if (fetchBytes > 0) this.#pool = this.#context.startFetchers(fetchBytes < ONE_WORKER_BYTES ? 1 : workers);
    const of = layers.size;
    let done = of - missing.filter(({ digest }) => layers.has(digest)).length;
    await Promise.all(
      missing.map(async (place, row) => {
        await this.#copy(place, ranges[row]!);
        if (!layers.has(place.digest)) return;
        done += 1;
        this.#context.emit({ event: 'layer', diffId: place.digest, done, of });
      }),
    );
    return this.#figures;
  }

  /** The places of blobs that are not there, after those that are have been looked through. */
  async #missing(blobs: ReadonlyMap<Digest, number>): Promise<BlobPlace[]> {
    const missing: BlobPlace[] = [];
    for (const [digest, sizeBytes] of blobs) {
      let place = await this.#target.place(digest, sizeBytes);
      if (place.held) {
        if ((await this.#hashWhole(place)) === digest) {
          this.#figures.reusedBytes += sizeBytes;
          continue;
        }
        this.#context.emit({ event: 'warning', message: `${place.path} is damaged; fetching it again` });
        place = await this.#target.forget(place);
      }
      this.#figures.resumedBytes += lengthOf(joinRanges(place.written));
      missing.push(place);
    }
    return missing;
  }

  #hashWhole(place: BlobPlace): Promise<Digest> {
    const hash = this.#hash(place);
    hash.port.postMessage(place.sizeBytes);
    return hash.end();
  }

  /** The ranges to fetch of each place. */
  #cut(places: readonly BlobPlace[]): BlobRange[][] {
    const total = places.reduce(
      (sum, { sizeBytes, written }) => sum + sizeBytes - lengthOf(joinRanges(written)),
      0,
    );
    const share = total / (this.#context.settings.connections * RANGES_PER_CONNECTION);
    const most = Math.round(Math.min(MOST_RANGE_BYTES, Math.max(LEAST_RANGE_BYTES, share)));
    return places.map(({ sizeBytes, written }) => missingRanges(sizeBytes, written, most));
  }

  /** Fetches what a blob lacks, proves it, and gives it its name; bytes that came whole and wrong are fetched once more. */
  async #copy(first: BlobPlace, ranges: readonly BlobRange[]): Promise<void> {
    let actual = await this.#fill(first, ranges);
    let place = first;
    if (actual !== place.digest) {
      this.#context.emit({
        event: 'warning',
        message: `blob ${place.digest} does not match its digest; fetching it once more`,
      });
      place = await this.#target.forget(place);
      actual = await this.#fill(place, missingRanges(place.sizeBytes, [], MOST_RANGE_BYTES));
    }
    if (actual !== place.digest) {
      await this.#target.forget(place);
      throw new PullError(
        'digest-mismatch',
        `blob ${place.digest} does not match its digest: its bytes hash to ${actual}, twice`,
        {
          layer: place.digest,
          hint: 'the registry or something on the way changes bytes: ask whoever runs it, or copy from another one',
        },
      );
    }
    await this.#target.keep(place);
  }

  /** The digest of the blob when all of it is there; it is hashed behind the front. */
  async #fill(place: BlobPlace, ranges: readonly BlobRange[]): Promise<Digest> {
    const front = new Front(place.written);
    // Begun with its first range: no more files are open than there are connections.
    let hash: Hash | undefined;
    const begin = () => {
      if (hash === undefined) {
        hash = this.#hash(place);
        hash.port.postMessage(front.end);
      }
      return hash;
    };
    const fetches = ranges.map((range) =>
      this.#queue(async () => {
        const { port } = begin();
        await this.#fetch(place, range);
        this.#target.note(place, range);
        if (front.add(range)) port.postMessage(front.end);
      }),
    );
    await Promise.all(fetches);
    return this.#queue(() => begin().end());
  }

  #hash({ path, start }: BlobPlace): Hash {
    const { port1, port2 } = new MessageChannel();
    const task = { task: 'hash-file', path, position: start, port: port2 } as const;
    const result = this.#context.support.run(task, [port2]).finally(() => port1.close());
    result.catch(() => {}); // heard of at its end
    const end = async () => {
      port1.postMessage(null);
      return (await result).digest;
    };
    return { port: port1, end };
  }

  async #fetch({ digest, sizeBytes, path, start: position }: BlobPlace, range: BlobRange): Promise<void> {
    const blob = { url: this.#urlOf(digest), digest, sizeBytes };
    this.#context.patience.asking(1);
    try {
      const pool = await this.#pool!;
      const { start, end } = range;
      const result = await pool.run({ task: 'copy-range', blob, start, end, path, position });
      this.#figures.fetchedBytes += result.fetchedBytes;
      this.#figures.requests += result.requests;
    } catch (error) {
      throw inLayer(error, digest);
    } finally {
      this.#context.patience.asking(-1);
    }
  }

  /** Runs `job` when a connection is free, in order. */
  #queue<T>(job: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(() => job().then(resolve, reject));
      this.#next();
    });
  }

  #next(): void {
    while (this.#running < this.#context.settings.connections && this.#context.stop.reason === undefined) {
      const job = this.#waiting.shift();
      if (job === undefined) return;
      this.#running += 1;
      void job().finally(() => {
        this.#running -= 1;
        this.#next();
      });
    }
  }
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
