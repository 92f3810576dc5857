import { MAX_DIGEST_KEY_BYTES, type PackLocation } from '../../src/store/cached-contents.js';
import { ExtentList } from '../../src/store/extents.js';
import { type ContentRows, PackWriter, type Region } from '../../src/store/pack-writer.js';
import type { PackId, StorePaths } from '../../src/store/paths.js';

const ZEROS = Buffer.alloc(2 ** 20);
const NOTHING = Buffer.alloc(0);

/**
 * Where the tar of one layer goes as it comes, block after block: to a pack of its own, one byte behind the other, but for
 * what another pack has. Positions are those in the tar.
 */
export class OpaquePack {
  readonly #writer: PackWriter;
  #region: Region | undefined;
  /** Where the next byte is written. */
  #packEnd = 0;
  /** Bytes before the block that wait for the end of their content, and memory for them. */
  #back: Buffer = NOTHING;
  #memory: Buffer = NOTHING;
  #block: Buffer = NOTHING;
  #blockStart = 0;
  /** Of the block: how many bytes at its beginning are to be written, and the first byte of which nothing is decided. */
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

  /** Bytes of which it is decided where they are, and `takeExtents` has not told. */
  get unreportedBytes(): number {
    return this.#extents.lengthBytes;
  }

  /** The next bytes, at most 1 MiB; they are not the caller's any more. */
  beginBlock(bytes: Buffer): void {
    this.#block = bytes;
  }

  /** The bytes up to `end`, in parts: those that wait and those of the block, or what of the block begins at `start`. */
  parts(start: number, end: number): Buffer[] {
    const first = start - this.#blockStart;
    const last = end - this.#blockStart;
    return first < 0 ? [this.#back, this.#block.subarray(0, last)] : [this.#block.subarray(first, last)];
  }

  /** Where in the pack a byte of the block will be, if nothing between it and what is decided is shared. */
  packOffsetOf(position: number): number {
    return this.#packEnd + this.#back.length + this.#kept + (position - this.#blockStart - this.#next);
  }

  /** The bytes `parts(start, end)` lie here: they are not written. What is before them is. @throws PullError as PackWriter */
  share(start: number, end: number, { pack, offset }: PackLocation): void {
    if (start < this.#blockStart) this.#back = NOTHING;
    else this.#keepUpTo(start - this.#blockStart);
    this.#extents.push(pack, offset, end - start);
    this.#next = end - this.#blockStart;
  }

  /**
   * Writes what is to be written of the block; the bytes from `waitFrom` on, less than MAX_DIGEST_KEY_BYTES, wait.
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

  /** Notes contents that are in the pack. @throws PullError as PackWriter */
  note(contents: ContentRows): void {
    if (contents.count > 0) this.#writer.recordContents(this.#own(), contents);
  }

  /** Where the next bytes of the tar are; they are on disk at the end of a block. */
  takeExtents(): ExtentList {
    const extents = this.#extents;
    this.#extents = new ExtentList();
    return extents;
  }

  /** Ends the pack. @throws PullError as PackWriter */
  close(): void {
    this.#writer.close();
  }

  /** What is kept moves up to what is kept before it, so that one call writes it all. */
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

  /** A block of zeros becomes a hole: its last byte makes the pack long enough. */
  #write(bytes: Buffer): void {
    const last = bytes.length - 1;
    const isHole = bytes[0] === 0 && bytes[last] === 0 && bytes.equals(ZEROS.subarray(0, bytes.length));
    if (isHole) this.#writer.writeUnindexed(this.#own(), bytes.subarray(last), this.#packEnd + last);
    else this.#writer.writeUnindexed(this.#own(), bytes, this.#packEnd);
    this.#packEnd += bytes.length;
  }

  /** Nobody else writes to this pack: the region is all of it. */
  #own(): Region {
    this.#region ??= this.#writer.reserve(Number.MAX_SAFE_INTEGER);
    return this.#region;
  }
}
