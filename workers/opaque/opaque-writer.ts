import { createHash, type Hash, hash } from 'node:crypto';
import { PullError } from '../../src/format/error.js';
import { type TarSink, TarWalker } from '../../src/format/tar-walker.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import {
  type CachedContentRows,
  CachedContents,
  MAX_DIGEST_KEY_BYTES,
} from '../../src/store/cached-contents.js';
import type { ExtentRows } from '../../src/store/extents.js';
import type { ContentRows } from '../../src/store/pack-writer.js';
import type { PackId, StorePaths } from '../../src/store/paths.js';
import { ContentList } from '../fetch/content-checker.js';
import { noteGarbage } from '../garbage.js';
import { CachedBytes, OpaquePack } from './opaque-pack.js';

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
    const started = threadClock.start();
    try {
      this.#walker?.walk(bytes, this.#contents);
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== 'metadata-malformed') throw error;
      this.#walker = undefined;
    }
    threadClock.end('hash', started, this.#contents.takeHashedBytes());
  }
}

/**
 * Maximum of shared contents of a blob: with the extents between them, a third of what a layer
 * record can have.
 */
const MAX_SHARED = 2 ** 20;

/**
 * Finds the contents of a tar, block by block: their digests, and which of their bytes are cached.
 * A content of up to MAX_DIGEST_KEY_BYTES waits for its digest, and is shared completely or not at
 * all. A larger one is compared with the cached ones of its size, for as long as one of them has
 * the same bytes.
 */
class StreamContents implements TarSink {
  readonly #pack: OpaquePack;
  readonly #cached: CachedBytes;
  #ended = new ContentList();
  /** The block being walked, and its tar offset. */
  #block: Buffer = Buffer.alloc(0);
  #blockStart = 0;
  /** Tar offset of the content being walked; -1 before its first byte. */
  #start = -1;
  #sizeBytes = 0;
  #packOffset = 0;
  #running: Hash | undefined;
  #hashedBytes = 0;
  #digest: Buffer = Buffer.alloc(0);
  /** Whether its bytes may be cached. */
  #mayShare = false;
  /** Whether some of them are. */
  #isShared = false;
  /** The number of shared contents. */
  #shared = 0;

  constructor(pack: OpaquePack, cached: CachedBytes) {
    this.#pack = pack;
    this.#cached = cached;
  }

  /** Begins a block. */
  enter(block: Buffer, tarStart: number): void {
    this.#block = block;
    this.#blockStart = tarStart;
  }

  /** Tar offset of a content that must not be written before its end; undefined if none waits. */
  get waitsFrom(): number | undefined {
    return this.#start >= 0 && this.#mayShare && this.#sizeBytes <= MAX_DIGEST_KEY_BYTES
      ? this.#start
      : undefined;
  }

  /** Returns the contents that ended in the block and are in the pack. */
  leave(): ContentRows {
    const rows = this.#ended.rows();
    if (rows.count > 0) this.#ended = new ContentList();
    return rows;
  }

  /** Returns the number of bytes hashed since the last call. */
  takeHashedBytes(): number {
    const bytes = this.#hashedBytes;
    this.#hashedBytes = 0;
    return bytes;
  }

  begin(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
    this.#mayShare = this.#shared < MAX_SHARED && this.#cached.takes(sizeBytes);
    this.#isShared = false;
  }

  data(part: Buffer): void {
    const at = this.#blockStart + (part.byteOffset - this.#block.byteOffset);
    if (this.#start < 0) {
      this.#start = at;
      this.#packOffset = this.#pack.packOffsetOf(at);
    }
    this.#hashedBytes += part.length;
    if (part.length === this.#sizeBytes) this.#digest = hash('sha256', part, 'buffer');
    else {
      this.#running ??= createHash('sha256');
      this.#running.update(part);
    }
    if (this.#sizeBytes > MAX_DIGEST_KEY_BYTES) this.#share(at, at + part.length);
  }

  end(): void {
    if (this.#running !== undefined) this.#digest = this.#running.digest();
    this.#running = undefined;
    if (this.#sizeBytes <= MAX_DIGEST_KEY_BYTES) this.#share(this.#start, this.#start + this.#sizeBytes);
    if (this.#isShared) this.#shared += 1;
    else this.#ended.add(this.#digest, this.#packOffset, this.#sizeBytes);
    this.#start = -1;
  }

  #share(start: number, end: number): void {
    if (!this.#mayShare) return;
    const parts = this.#pack.parts(start, end);
    const location = this.#cached.find(this.#sizeBytes, this.#digest, start - this.#start, parts);
    this.#mayShare = location !== undefined;
    if (location === undefined) return;
    this.#pack.share(start, end, location);
    this.#isShared = true;
  }
}
