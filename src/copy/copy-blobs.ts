import { allocatedBytes, requireSpace } from '../files/disk-space.js';
import type { OwnFile } from '../files/own-file.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type BlobRange, countPieces, cutRanges, lengthOf, missingRanges } from '../format/ranges.js';
import type { BlobSource } from '../pool/messages.js';
import { fromAnyUrl, wrongBytesHint } from '../pull/blob-locations.js';
import { Fetcher } from '../pull/fetcher.js';
import { type FetchFigures, sumOfFetches } from '../pull/layer.js';
import type { PullContext } from '../pull/pull-context.js';
import type { Stop } from '../pull/stop.js';
import { copyThreads } from '../pull/thread-counts.js';
import { MAX_BLOB_TRIES } from '../registry/endpoint-choice.js';
import { BlobFetch, hashBlob } from './blob-fetch.js';
import type { CopyBlob, CopySource } from './copy-source.js';

/** What one request fetches: at 20 MB/s a connection and 50 ms away 8 MiB spend a tenth of their time waiting. */
const MOST_RANGE_BYTES = 8 * 2 ** 20;
const LEAST_RANGE_BYTES = 2 ** 20;
/** Ranges a connection in small copies, so that all of them end together. */
const RANGES_PER_CONNECTION = 4;

export interface CopyFigures extends Readonly<FetchFigures> {
  readonly reusedBytes: number;
  readonly resumedBytes: number;
}

/** Brings all blobs to their places, each proven before it gets its name. */
export async function copyBlobs(
  context: PullContext,
  target: CopyTarget,
  source: CopySource,
): Promise<CopyFigures> {
  return context.stop.guard(new BlobCopies(context, target, source).run());
}

/** The blobs of one copy while they fill up. */
class BlobCopies {
  readonly #context: PullContext;
  readonly #target: CopyTarget;
  readonly #source: CopySource;
  #reusedBytes = 0;
  #resumedBytes = 0;

  constructor(context: PullContext, target: CopyTarget, source: CopySource) {
    this.#context = context;
    this.#target = target;
    this.#source = source;
  }

  async run(): Promise<CopyFigures> {
    const { blobs, layers } = this.#source;
    const missing = await this.#missing(blobs.values());
    const gaps = missing.map(({ sizeBytes, written }) => missingRanges(sizeBytes, written));
    const fetchBytes = gaps.reduce((sum, each) => sum + lengthOf(each), 0);
    const mostBytes = this.#mostBytes(fetchBytes);
    this.#context.emit({
      event: 'planned',
      totalBytes: fetchBytes,
      fetchBytes,
      reuseBytes: this.#reusedBytes,
      resumeBytes: this.#resumedBytes,
      requests: gaps.reduce((sum, each) => sum + countPieces(each, mostBytes), 0),
    });
    // Before files have their length: not every file system can leave holes.
    await requireSpace(this.#target.directory, Math.min(fetchBytes, lackOf(missing)));
    const places = this.#target.make(missing);
    const { threads, mayShare } = copyThreads(this.#context.settings.workers, fetchBytes);
    const startPool = () => this.#context.startFetchers(threads, mayShare);
    const fetcher = new Fetcher({ context: this.#context, startPool, layers: missing.length });
    const of = layers.size;
    let done = of - missing.filter(({ digest }) => layers.has(digest)).length;
    await Promise.all(
      places.map(async (place, row) => {
        await this.#copy(place, cutRanges(gaps[row]!, mostBytes), fetcher, row);
        if (!layers.has(place.digest)) return;
        done += 1;
        this.#context.emit({ event: 'layer', diffId: place.digest, done, of });
      }),
    );
    return {
      ...sumOfFetches(fetcher.figures),
      reusedBytes: this.#reusedBytes,
      resumedBytes: this.#resumedBytes,
    };
  }

  /** The places of blobs that are not there, after those that are have been looked through. */
  async #missing(blobs: Iterable<CopyBlob>): Promise<BlobLocation[]> {
    const missing: BlobLocation[] = [];
    for (const { digest, sizeBytes } of blobs) {
      let place = await this.#target.place(digest, sizeBytes);
      if (place.held) {
        if ((await hashBlob(this.#context.support, place, sizeBytes).end()) === digest) {
          this.#reusedBytes += sizeBytes;
          continue;
        }
        this.#context.emit({ event: 'warning', message: `${place.path} is damaged; fetching it again` });
        place = await this.#target.forget(place);
      }
      this.#resumedBytes += lengthOf(place.written);
      missing.push(place);
    }
    return missing;
  }

  /** What one request fetches at most when so much is to be fetched. */
  #mostBytes(fetchBytes: number): number {
    const share = fetchBytes / (this.#context.settings.connections * RANGES_PER_CONNECTION);
    return Math.round(Math.min(MOST_RANGE_BYTES, Math.max(LEAST_RANGE_BYTES, share)));
  }

  /** Brings a blob from where it is to be had, and gives it its name; bytes that came whole and wrong are fetched once more. */
  #copy(first: WritableBlob, ranges: Iterable<BlobRange>, fetcher: Fetcher, layer: number): Promise<void> {
    const target = this.#target;
    const { support, emit, endpoints } = this.#context;
    const { urls, ...rest } = this.#source.blobs.get(first.digest)!;
    let place = first;
    let missing = ranges;
    const beginAnew = async () => {
      place = target.make([await target.forget(place)])[0]!;
      missing = cutRanges(missingRanges(place.sizeBytes, []), MOST_RANGE_BYTES);
    };
    const beginFullBlob = async () => {
      await beginAnew();
      missing = [{ start: 0, end: place.sizeBytes }];
    };
    return fromAnyUrl(urls, emit, async (url, again) => {
      if (again) await beginAnew();
      let ranges = true;
      for (let tries = 1; ; tries++) {
        const blob = { ...rest, url };
        const fill = new BlobFetch({ blob, place, fetcher, layer, support });
        let actual: Digest;
        try {
          actual = await fill.run(missing);
        } catch (error) {
          if (!ranges || !(error instanceof PullError) || error.code !== 'unsupported') throw error;
          // The server gives no ranges.
          ranges = false;
          await beginFullBlob();
          continue;
        }
        if (actual === blob.digest) return target.keep(place);
        // What an earlier copy left may be what is wrong.
        const allSent = place.written.length === 0;
        await beginAnew();
        const { sender } = fill;
        if (sender !== undefined && allSent) endpoints.lacks(sender, blob.digest);
        const mayBeHad = blob.anonymous !== true && sender !== undefined && endpoints.mayBeHad(blob.digest);
        const elsewhere = mayBeHad && tries < MAX_BLOB_TRIES;
        if (tries > 1 && !elsewhere) throw wrongBlob(blob, actual);
        const message = `blob ${blob.digest} does not match its digest; fetching it again`;
        emit({ event: 'warning', message });
      }
    });
  }
}

/** What files that are there lack of the room for these places. One without holes has all of it, whatever is written. */
function lackOf(places: readonly BlobLocation[]): number {
  const sizes = places.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const paths = new Set(places.map(({ path }) => path));
  return [...paths].reduce((lack, path) => lack - allocatedBytes(path), sizes);
}

function wrongBlob(blob: BlobSource, actual: Digest): PullError {
  const { digest } = blob;
  const message = `blob ${digest} does not match its digest: its bytes hash to ${actual}, twice`;
  return new PullError('digest-mismatch', message, { layer: digest, hint: wrongBytesHint(blob) });
}

/** Where a blob goes. */
export interface BlobLocation {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly path: string;
  /** Where in the file it begins. */
  readonly start: number;
  /** It is there under its name already, for what its bytes are worth. */
  readonly held: boolean;
  /** What an earlier copy that was broken off has written, in order; none touches the next. */
  readonly written: readonly BlobRange[];
}

/** A place with its files. */
export interface WritableBlob extends BlobLocation {
  readonly file: OwnFile;
  /** In which its ranges are noted as they come. */
  readonly journal: OwnFile;
}

/** How a target is opened. */
export interface TargetOptions {
  readonly tag: string | undefined;
  readonly stop: Stop;
  /** Called when another copy to this place has to end first. */
  readonly onWait: () => void;
}

/** Where a copy goes: a layout in a directory, or in an archive. Nothing has its final name before it is proven. */
export interface CopyTarget {
  /** Where the bytes go: there must be room for them. */
  readonly directory: string;
  /** The place of a blob, and what of it is there. @throws PullError as `storageError` */
  place(digest: Digest, sizeBytes: number): Promise<BlobLocation>;
  /** Makes the files of these places, or takes up what an earlier copy left. @throws PullError as `storageError` */
  make(places: readonly BlobLocation[]): WritableBlob[];
  /** The bytes there are wrong, all of them may be. Returns the place again, with nothing in it. */
  forget(place: BlobLocation): Promise<BlobLocation>;
  /** The bytes there are right. */
  keep(place: WritableBlob): Promise<void>;
  /** Everything is there: the image gets its name. */
  finish(source: CopySource): Promise<void>;
  /** Leaves it to other copies. Called when nobody writes there any more. @throws PullError as `storageError` */
  close(): void;
}
