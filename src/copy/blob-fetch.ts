import { MessageChannel } from 'node:worker_threads';
import { type BlobRange, joinRanges } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { Fetcher } from '../pull/fetcher.js';
import type { BlobSource } from '../registry/range-client.js';
import type { BlobLocation, WritableBlob } from './copy-blobs.js';
import { RangesFetch } from './ranges-fetch.js';

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
  readonly #fetch: RangesFetch;
  readonly #front: Front;
  /** Created with the first range, so that no more files are open than ranges are in flight. */
  #hash: Hash | undefined;

  constructor(options: FillOptions) {
    this.#options = options;
    const { blob, fetcher, layer, location } = options;
    const { file, start: position, journal } = location;
    this.#front = new Front(location.written);
    this.#fetch = new RangesFetch({
      blob,
      fetcher,
      layer,
      into: { file, position, journal },
      onBegin: () => void this.#begin(),
      onArrived: (range, isLast) => this.#arrived(range, isLast),
    });
  }

  /** The first of the endpoints that sent bytes; undefined when nothing was fetched. */
  get sender(): number | undefined {
    return this.#fetch.sender;
  }

  /**
   * Fetches these ranges, each taken from the iterator when it can begin.
   * @returns the digest of the blob
   * @throws PullError as `RangesFetch.run`
   */
  async run(ranges: Iterable<BlobRange>): Promise<Digest> {
    const { support, location } = this.#options;
    let isFull: boolean;
    try {
      ({ isFull } = await this.#fetch.run(ranges));
    } catch (error) {
      this.#hash?.drop();
      throw error;
    }
    if (!isFull) return this.#begin().end();
    // It was written over bytes that were hashed before.
    this.#hash?.drop();
    return hashBlob(support, location, location.sizeBytes).end();
  }

  /** For the last range, resolves when all is hashed. */
  async #arrived(range: BlobRange, isLast: boolean): Promise<void> {
    const hash = this.#begin();
    if (this.#front.add(range)) hash.reach(this.#front.end);
    if (isLast) await hash.end();
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
