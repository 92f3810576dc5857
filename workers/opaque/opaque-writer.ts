import { PullError } from '../../src/format/error.js';
import { TarWalker } from '../../src/format/tar-walker.js';
import { count } from '../../src/pool/shared-memory.js';
import { type CachedContentRows, CachedContents } from '../../src/store/cached-contents.js';
import type { ExtentRows } from '../../src/store/extents.js';
import type { PackId, StorePaths } from '../../src/store/paths.js';
import { noteGarbage } from '../garbage.js';
import { CachedBytes } from './cached-bytes.js';
import { OpaquePack } from './opaque-pack.js';
import { StreamContents } from './stream-contents.js';

/**
 * Bytes to report at a time: so that the hash of the layer need not wait long, and messages are
 * few.
 */
const REPORTED_BYTES = 4 * 2 ** 20;

interface Options {
  readonly paths: StorePaths;
  readonly counters: Uint32Array<SharedArrayBuffer>;
  /** Contents that need not be written. */
  readonly cached: CachedContentRows;
  /** Receives the extents of the tar, in order. */
  readonly report: (rows: ExtentRows) => void;
}

/**
 * Writes the decoded tar of one layer to its own pack, except for cached contents. Records the
 * contents of regular files in the index, and reports the extents of the tar.
 */
export class OpaqueWriter {
  readonly #counters: Options['counters'];
  readonly #report: Options['report'];
  readonly #pack: OpaquePack;
  readonly #cached: CachedBytes;
  readonly #contents: StreamContents;
  /** Undefined after bytes that are no known tar format: the DiffID proves them anyway. */
  #walker: TarWalker | undefined = new TarWalker();
  #tarBytes = 0;
  /** How many of the written bytes the counter has. */
  #countedBytes = 0;

  constructor({ paths, counters, cached, report }: Options) {
    this.#counters = counters;
    this.#report = report;
    this.#pack = new OpaquePack(paths);
    this.#cached = new CachedBytes(paths, new CachedContents(cached));
    this.#contents = new StreamContents(this.#pack, this.#cached);
  }

  get pack(): PackId | null {
    return this.#pack.id;
  }

  get tarBytes(): number {
    return this.#tarBytes;
  }

  /** Writes the next bytes, at most 1 MiB, and takes ownership of them.
   * @throws PullError as PackWriter */
  readonly write = (bytes: Buffer): void => {
    this.#pack.beginBlock(bytes);
    this.#contents.enter(bytes, this.#tarBytes);
    this.#tarBytes += bytes.length;
    this.#walk(bytes);
    this.#endBlock(this.#contents.waitsFrom ?? this.#tarBytes);
    this.#pack.note(this.#contents.leave());
    if (this.#pack.unreportedBytes >= REPORTED_BYTES) this.#reportRest();
    noteGarbage(bytes.length);
  };

  /** Writes and reports the rest after the last bytes. @throws PullError as PackWriter */
  end(): void {
    this.#endBlock(this.#tarBytes);
    this.#reportRest();
    this.#cached.markCorruptRun();
  }

  /** Closes the pack. @throws PullError as PackWriter */
  close(): void {
    this.#cached.close();
    this.#pack.close();
  }

  #endBlock(waitFrom: number): void {
    this.#pack.endBlock(waitFrom);
    const { writtenBytes } = this.#pack;
    count(this.#counters, 'written', writtenBytes - this.#countedBytes);
    this.#countedBytes = writtenBytes;
  }

  #reportRest(): void {
    const extents = this.#pack.takeExtents();
    if (extents.count > 0) this.#report(extents.toRows());
  }

  #walk(bytes: Buffer): void {
    try {
      this.#walker?.walk(bytes, this.#contents);
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== 'metadata-malformed') throw error;
      this.#walker = undefined;
    }
  }
}
