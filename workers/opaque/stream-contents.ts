import { createHash, type Hash, hash } from 'node:crypto';
import type { TarSink } from '../../src/format/tar-walker.js';
import { MAX_DIGEST_KEY_BYTES } from '../../src/store/cached-contents.js';
import type { ContentRows } from '../../src/store/pack-writer.js';
import { ContentList } from '../fetch/content-checker.js';
import type { CachedBytes } from './cached-bytes.js';
import type { OpaquePack } from './opaque-pack.js';

/**
 * Maximum of shared contents of a blob: with the extents between them, a third of what a layer
 * record can have.
 */
const MAX_SHARED = 2 ** 20;

const NOTHING = Buffer.alloc(0);

/**
 * Finds the contents of a tar, block by block: their digests, and which of their bytes are cached.
 * A content of up to MAX_DIGEST_KEY_BYTES waits for its digest, and is shared completely or not at
 * all. A larger one is compared with the cached ones of its size, for as long as one of them has
 * the same bytes.
 */
export class StreamContents implements TarSink {
  readonly #pack: OpaquePack;
  readonly #cached: CachedBytes;
  #ended = new ContentList();
  /** The block being walked, and its tar offset. */
  #block: Buffer = NOTHING;
  #blockStart = 0;
  /** Tar offset of the content being walked; -1 before its first byte. */
  #start = -1;
  #sizeBytes = 0;
  #packOffset = 0;
  #running: Hash | undefined;
  #digest: Buffer = NOTHING;
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
