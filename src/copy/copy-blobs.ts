import { allocatedBytes, requireSpace } from '../files/disk-space.js';
import type { OwnFile } from '../files/guarded-directory.js';
import { type BlobRange, countPieces, cutRanges, lengthOf, missingRanges } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { fromAnyUrl, wrongBytesHint } from '../pull/blob-locations.js';
import { copyThreads } from '../pull/budgets.js';
import { Fetcher } from '../pull/fetcher.js';
import { type FetchFigures, sumOfFetches } from '../pull/layer.js';
import type { PullContext, Stop } from '../pull/pull-context.js';
import { MAX_BLOB_TRIES } from '../registry/endpoint-state.js';
import type { BlobSource } from '../registry/range-client.js';
import { BlobFetch, hashBlob } from './blob-fetch.js';
import type { CopyBlob, CopySource } from './copy-source.js';

/**
 * Sizes of one request: at 20 MB/s a connection and 50 ms of latency, 8 MiB spend a tenth of their
 * time waiting.
 */
const MAX_RANGE_BYTES = 8 * 2 ** 20;
const MIN_RANGE_BYTES = 2 ** 20;
/** Ranges a connection in small copies, so that all of them end together. */
const RANGES_PER_CONNECTION = 4;

/** What a copy fetched and reused, in bytes. */
export interface CopyFigures extends Readonly<FetchFigures> {
  readonly reusedBytes: number;
  readonly resumedBytes: number;
}

/**
 * Fetches all blobs that the target lacks, and verifies each before it is published.
 * @throws PullError as fetching does; `digest-mismatch`
 */
export async function copyBlobs(
  context: PullContext,
  target: CopyTarget,
  source: CopySource,
): Promise<CopyFigures> {
  return context.stop.guard(new BlobCopies(context, target, source).run());
}

/** The blobs of one copy while they arrive. */
class BlobCopies {
  readonly #context: PullContext;
  readonly #target: CopyTarget;
  readonly #source: CopySource;
  #reusedBytes = 0;
  #resumedBytes = 0;
  /** Bytes of the blobs that were verified. */
  #provenBytes = 0;

  constructor(context: PullContext, target: CopyTarget, source: CopySource) {
    this.#context = context;
    this.#target = target;
    this.#source = source;
  }

  async run(): Promise<CopyFigures> {
    const { blobs, layers } = this.#source;
    const listed = [...blobs.values()].filter(({ digest }) => layers.has(digest));
    this.#context.layers.list(
      listed.map(({ digest, sizeBytes }) => ({ digest, sizeBytes, isCached: false })),
    );
    const missing = await this.#missing(blobs.values());
    const gaps = missing.map(({ sizeBytes, written }) => missingRanges(sizeBytes, written));
    const fetchBytes = gaps.reduce((sum, each) => sum + lengthOf(each), 0);
    const maxBytes = this.#maxBytes(fetchBytes);
    for (const [row, { digest, written }] of missing.entries()) {
      const totals = { totalBytes: lengthOf(gaps[row]!), resumedBytes: lengthOf(written) };
      this.#context.layers.plan(digest, { ...totals, receivedBytes: 0, reusedBytes: 0 });
    }
    this.#context.emit({
      event: 'planned',
      totalBytes: fetchBytes,
      fetchBytes,
      reuseBytes: this.#reusedBytes,
      resumeBytes: this.#resumedBytes,
      requests: gaps.reduce((sum, each) => sum + countPieces(each, maxBytes), 0),
    });
    // Before files are extended to their length: not every file system supports holes.
    await requireSpace(this.#target.directory, Math.min(fetchBytes, unallocatedBytes(missing)));
    const opened = this.#target.open(missing);
    const { threads, mayShare } = copyThreads(this.#context.settings.workers, fetchBytes);
    const startPool = () => this.#context.startFetchers(threads, mayShare);
    const fetcher = new Fetcher({ context: this.#context, startPool, layers: missing.length });
    this.#context.layers.follow(
      missing.map(({ digest }) => digest),
      fetcher,
    );
    const of = layers.size;
    let done = of - missing.filter(({ digest }) => layers.has(digest)).length;
    await Promise.all(
      opened.map(async (blob, row) => {
        await this.#copy(blob, cutRanges(gaps[row]!, maxBytes), fetcher, row);
        if (!layers.has(blob.digest)) return;
        done += 1;
        this.#context.emit({ event: 'layer', diffId: blob.digest, done, of });
      }),
    );
    const { lastByteMs } = fetcher;
    this.#context.stages.clock.addWait('prove', lastByteMs, performance.now(), this.#provenBytes);
    return {
      ...sumOfFetches(fetcher.figures),
      reusedBytes: this.#reusedBytes,
      resumedBytes: this.#resumedBytes,
    };
  }

  /** Verifies the blobs that are present, and returns the locations of the others. */
  async #missing(blobs: Iterable<CopyBlob>): Promise<BlobLocation[]> {
    const missing: BlobLocation[] = [];
    for (const { digest, sizeBytes } of blobs) {
      let location = await this.#target.locate(digest, sizeBytes);
      if (location.isPresent) {
        if ((await hashBlob(this.#context.support, location, sizeBytes).end()) === digest) {
          this.#reusedBytes += sizeBytes;
          this.#provenBytes += sizeBytes;
          this.#context.layers.reuse(digest);
          continue;
        }
        this.#context.emit({ event: 'warning', message: `${location.path} is damaged; fetching it again` });
        location = await this.#target.discard(location);
      }
      this.#resumedBytes += lengthOf(location.written);
      missing.push(location);
    }
    return missing;
  }

  #maxBytes(fetchBytes: number): number {
    const share = fetchBytes / (this.#context.settings.connections * RANGES_PER_CONNECTION);
    return Math.round(Math.min(MAX_RANGE_BYTES, Math.max(MIN_RANGE_BYTES, share)));
  }

  /**
   * Fetches and publishes a blob. Fetches wrong bytes once more, and again as long as there is an
   * endpoint that has not sent any.
   */
  #copy(opened: WritableBlob, ranges: Iterable<BlobRange>, fetcher: Fetcher, layer: number): Promise<void> {
    const target = this.#target;
    const { support, emit, endpoints } = this.#context;
    const { urls, ...source } = this.#source.blobs.get(opened.digest)!;
    let location = opened;
    let missing = ranges;
    const startOver = async () => {
      location = target.open([await target.discard(location)])[0]!;
      missing = cutRanges(missingRanges(location.sizeBytes, []), MAX_RANGE_BYTES);
    };
    const startFullBlob = async () => {
      await startOver();
      missing = [{ start: 0, end: location.sizeBytes }];
    };
    return fromAnyUrl(urls, emit, async (url, isRetry) => {
      if (isRetry) await startOver();
      let ranges = true;
      for (let tries = 1; ; tries++) {
        const blob = { ...source, url };
        const fetch = new BlobFetch({ blob, location, fetcher, layer, support });
        let actual: Digest;
        try {
          actual = await fetch.run(missing);
        } catch (error) {
          if (!ranges || !(error instanceof PullError) || error.code !== 'unsupported') throw error;
          // The server ignores ranges.
          ranges = false;
          await startFullBlob();
          continue;
        }
        if (actual === blob.digest) {
          this.#provenBytes += blob.sizeBytes;
          return target.publish(location);
        }
        // Otherwise the bytes of an earlier copy may be the wrong ones.
        const allSent = location.written.length === 0;
        await startOver();
        const { sender } = fetch;
        if (sender !== undefined && allSent) endpoints.lacks(sender, blob.digest);
        const mayServe = blob.anonymous !== true && sender !== undefined && endpoints.mayServe(blob.digest);
        const elsewhere = mayServe && tries < MAX_BLOB_TRIES;
        if (tries > 1 && !elsewhere) throw wrongBlob(blob, actual);
        const message = `blob ${blob.digest} does not match its digest; fetching it again`;
        emit({ event: 'warning', message });
      }
    });
  }
}

/**
 * The bytes still to allocate for these blobs. A file without holes has all of them, whatever is
 * written.
 */
function unallocatedBytes(locations: readonly BlobLocation[]): number {
  const sizes = locations.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const paths = new Set(locations.map(({ path }) => path));
  return [...paths].reduce((bytes, path) => bytes - allocatedBytes(path), sizes);
}

function wrongBlob(blob: BlobSource, actual: Digest): PullError {
  const { digest } = blob;
  const message = `blob ${digest} does not match its digest: its bytes hash to ${actual}, twice`;
  return new PullError('digest-mismatch', message, { layer: digest, hint: wrongBytesHint(blob) });
}

/** Where a blob is written. */
export interface BlobLocation {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly path: string;
  /** Offset of the blob in the file. */
  readonly start: number;
  /** Whether a file of its size has its final name already; its bytes are unverified. */
  readonly isPresent: boolean;
  /** Ranges that an interrupted copy has written, in order and merged. */
  readonly written: readonly BlobRange[];
}

/** A blob with open files. */
export interface WritableBlob extends BlobLocation {
  readonly file: OwnFile;
  /** Records its ranges as they arrive. */
  readonly journal: OwnFile;
}

export interface TargetOptions {
  readonly tag: string | undefined;
  readonly stop: Stop;
  /** Called when another copy to this destination has to end first. */
  readonly onWait: () => void;
}

/**
 * The destination of a copy, a layout or an archive of one. Nothing has its final name before it is
 * verified.
 */
export interface CopyTarget {
  /** The directory that needs space for all bytes. */
  readonly directory: string;
  /**
   * Returns the location of a blob, and which parts of it are present.
   * @throws PullError as `storageError`
   */
  locate(digest: Digest, sizeBytes: number): Promise<BlobLocation>;
  /**
   * Creates the files of these blobs, or opens those of an earlier copy.
   * @throws PullError as `storageError`
   */
  open(blobs: readonly BlobLocation[]): WritableBlob[];
  /** Discards wrong bytes of a blob. Returns its location without any. */
  discard(location: BlobLocation): Promise<BlobLocation>;
  /** Gives a verified blob its final name. */
  publish(location: WritableBlob): Promise<void>;
  /** Names the image, after all its blobs. */
  finish(source: CopySource): Promise<void>;
  /** Releases the destination, after the last write. @throws PullError as `storageError` */
  close(): void;
}
