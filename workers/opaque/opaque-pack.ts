import { PullError } from '../../src/format/error.js';
import {
  type CachedContents,
  MAX_DIGEST_KEY_BYTES,
  type PackLocation,
} from '../../src/store/cached-contents.js';
import { findCorruption } from '../../src/store/corruption.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { type ContentRows, PackWriter, type Region } from '../../src/store/pack-writer.js';
import type { PackId, StorePaths } from '../../src/store/paths.js';

const ZEROS = Buffer.alloc(2 ** 20);
const NOTHING = Buffer.alloc(0);

/**
 * Stores the tar of one layer, block by block, in its own pack without gaps, except for what
 * another pack has. Positions are those in the tar.
 */
export class OpaquePack {
  readonly #writer: PackWriter;
  #region: Region | undefined;
  /** Offset of the next byte. */
  #packEnd = 0;
  /** Bytes before the block that wait for the end of their content, and their memory. */
  #back: Buffer = NOTHING;
  #memory: Buffer = NOTHING;
  #block: Buffer = NOTHING;
  #blockStart = 0;
  /**
   * In the block: how many bytes at its start are to be written, and the first byte that is not
   * decided.
   */
  #kept = 0;
  #next = 0;
  #extents = new ExtentList();

  constructor(paths: StorePaths) {
    this.#writer = new PackWriter(paths);
  }

  get id(): PackId | null {
    return this.#region?.pack ?? null;
  }

  get writtenBytes(): number {
    return this.#packEnd;
  }

  /** Bytes whose extents are known and were not returned by `takeExtents` yet. */
  get unreportedBytes(): number {
    return this.#extents.lengthBytes;
  }

  /** Begins the next block, at most 1 MiB, and takes ownership of it. */
  beginBlock(bytes: Buffer): void {
    this.#block = bytes;
  }

  /**
   * Returns bytes [start, end) in parts: the waiting ones and those of the block, or only those of
   * the block.
   */
  parts(start: number, end: number): Buffer[] {
    const first = start - this.#blockStart;
    const last = end - this.#blockStart;
    return first < 0 ? [this.#back, this.#block.subarray(0, last)] : [this.#block.subarray(first, last)];
  }

  /** The pack offset of a byte of the block, if no undecided byte before it is shared. */
  packOffsetOf(position: number): number {
    return this.#packEnd + this.#back.length + this.#kept + (position - this.#blockStart - this.#next);
  }

  /** Uses the bytes of another pack for `parts(start, end)`. Those before them are written.
   * @throws PullError as PackWriter */
  share(start: number, end: number, { pack, offset }: PackLocation): void {
    if (start < this.#blockStart) this.#back = NOTHING;
    else this.#keepUpTo(start - this.#blockStart);
    this.#extents.push(pack, offset, end - start);
    this.#next = end - this.#blockStart;
  }

  /**
   * Writes the bytes of the block that are to be written. Those from `waitFrom` on, less than
   * MAX_DIGEST_KEY_BYTES, wait.
   * @throws PullError as PackWriter
   */
  endBlock(waitFrom: number): void {
    const end = Math.max(0, waitFrom - this.#blockStart);
    if (waitFrom >= this.#blockStart) this.#keepUpTo(end);
    if (this.#kept > 0) this.#write(this.#block.subarray(0, this.#kept));
    this.#wait(this.#block.subarray(end));
    this.#blockStart += this.#block.length;
    this.#block = NOTHING;
    this.#kept = 0;
    this.#next = 0;
  }

  /** Records contents of the pack in its index. @throws PullError as PackWriter */
  note(contents: ContentRows): void {
    if (contents.count > 0) this.#writer.recordContents(this.#own(), contents);
  }

  /** Returns the next extents of the tar; they are on disk after `endBlock`. */
  takeExtents(): ExtentList {
    const extents = this.#extents;
    this.#extents = new ExtentList();
    return extents;
  }

  /** Closes the pack. @throws PullError as PackWriter */
  close(): void {
    this.#writer.close();
  }

  /** Moves the bytes to write to the start of the block, so that one call writes all of them. */
  #keepUpTo(end: number): void {
    if (this.#back.length > 0) {
      this.#extents.push(this.#own().pack, this.#packEnd, this.#back.length);
      this.#write(this.#back);
      this.#back = NOTHING;
    }
    const bytes = end - this.#next;
    if (bytes === 0) return;
    if (this.#kept < this.#next) this.#block.copyWithin(this.#kept, this.#next, end);
    this.#extents.push(this.#own().pack, this.#packEnd + this.#kept, bytes);
    this.#kept += bytes;
    this.#next = end;
  }

  #wait(bytes: Buffer): void {
    if (bytes.length === 0) return;
    if (this.#memory.length === 0) this.#memory = Buffer.allocUnsafeSlow(MAX_DIGEST_KEY_BYTES);
    const waiting = this.#back.length;
    bytes.copy(this.#memory, waiting);
    this.#back = this.#memory.subarray(0, waiting + bytes.length);
  }

  /** Zeros become a hole: only their last byte is written, for the length of the pack. */
  #write(bytes: Buffer): void {
    const last = bytes.length - 1;
    const isHole = bytes[0] === 0 && bytes[last] === 0 && bytes.equals(ZEROS.subarray(0, bytes.length));
    if (isHole) this.#writer.writeUnindexed(this.#own(), bytes.subarray(last), this.#packEnd + last);
    else this.#writer.writeUnindexed(this.#own(), bytes, this.#packEnd);
    this.#packEnd += bytes.length;
  }

  /** The region is the full pack, which has no other writer. */
  #own(): Region {
    this.#region ??= this.#writer.reserve(Number.MAX_SAFE_INTEGER);
    return this.#region;
  }
}

/** Bytes read and compared at a time: they fit the cache. */
const STEP_BYTES = 64 * 1024;

/** Mismatching runs to hash; `store verify` finds the rest. */
const MAX_SUSPECTS = 1000;

/** Finds bytes in packs. Reads and compares them, so that no index needs to be trusted. */
export class CachedBytes {
  readonly #paths: StorePaths;
  readonly #contents: CachedContents;
  readonly #reader: PackReader;
  readonly #step = Buffer.allocUnsafeSlow(STEP_BYTES);
  /** Contents with the right start of a digest and other bytes. */
  readonly #suspects = new ExtentList();

  constructor(paths: StorePaths, contents: CachedContents) {
    this.#paths = paths;
    this.#contents = contents;
    this.#reader = new PackReader(paths);
  }

  /** Whether the packs may have a content of this size. */
  takes(sizeBytes: number): boolean {
    return this.#contents.accepts(sizeBytes);
  }

  /**
   * Returns the location of the bytes of these parts, which follow each other at `position` in a
   * content of `sizeBytes`. `digest` is the digest of the content, if its size requires one.
   */
  find(
    sizeBytes: number,
    digest: Buffer,
    position: number,
    parts: readonly Buffer[],
  ): PackLocation | undefined {
    for (const { pack, offset } of this.#contents.locations(sizeBytes, digest)) {
      const location = { pack, offset: offset + position };
      if (this.#has(location, parts)) return location;
      if (sizeBytes <= MAX_DIGEST_KEY_BYTES && this.#suspects.count < MAX_SUSPECTS)
        this.#suspects.push(pack, offset, sizeBytes);
    }
    return undefined;
  }

  /**
   * Marks runs without the digest in their index, which others would trust. Ignores errors of the
   * disk.
   */
  markCorruptRun(): void {
    if (this.#suspects.count === 0) return;
    try {
      findCorruption(this.#paths, this.#reader, this.#suspects);
    } catch (error) {
      // The layer does not need these runs.
      if (!(error instanceof PullError)) throw error;
    }
  }

  close(): void {
    this.#reader.close();
  }

  /** Whether the pack has these bytes; false if it cannot be read. */
  #has({ pack, offset }: PackLocation, parts: readonly Buffer[]): boolean {
    let at = offset;
    try {
      for (const part of parts) {
        for (let done = 0; done < part.length; done += STEP_BYTES) {
          const bytes = Math.min(STEP_BYTES, part.length - done);
          this.#reader.readInto(this.#step, 0, pack, at, bytes);
          if (this.#step.compare(part, done, done + bytes, 0, bytes) !== 0) return false;
          at += bytes;
        }
      }
      return true;
    } catch (error) {
      if (error instanceof PullError) return false;
      throw error;
    }
  }
}
