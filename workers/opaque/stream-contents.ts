import { createHash, type Hash, hash } from 'node:crypto';
import type { TarSink } from '../../src/format/tar-walker.js';
import { MAX_DIGEST_KEY_BYTES } from '../../src/store/cached-contents.js';
import type { ContentRows } from '../../src/store/pack-writer.js';
import { ContentList } from '../fetch/content-checker.js';
import type { CachedBytes } from './cached-bytes.js';
import type { OpaquePack } from './opaque-pack.js';

/** Contents of one stream that are shared at most: with what is between them they are a third of the extents that a record can have. */
const MAX_SHARED = 2 ** 20;

const NOTHING = Buffer.alloc(0);

/**
 * The contents of a tar, block after block: their digests, and which of their bytes are held. One of up to MAX_DIGEST_KEY_BYTES waits for
 * its digest, and is shared as a whole. A larger one is compared with those of its size, for as long as one of them goes on
 * as it does.
 */
export class StreamContents implements TarSink {
  readonly #pack: OpaquePack;
  readonly #cached: CachedBytes;
  #ended = new ContentList();
  /** The block that is walked, and where it stands in the tar. */
  #block: Buffer = NOTHING;
  #blockStart = 0;
  /** The content that is walked; -1: none, or none of its bytes have come. */
  #start = -1;
  #sizeBytes = 0;
  #packOffset = 0;
  #running: Hash | undefined;
  #digest: Buffer = NOTHING;
  /** Whether its bytes may be held. */
  #asks = false;
  /** Whether some of them are. */
  #isShared = false;
  /** Contents of which that was so. */
  #shared = 0;

  constructor(pack: OpaquePack, cached: CachedBytes) {
    this.#pack = pack;
    this.#cached = cached;
  }

  /** The next bytes of the tar will be walked. */
  enter(block: Buffer, tarStart: number): void {
    this.#block = block;
    this.#blockStart = tarStart;
  }

  /** Where a content begins that must not be written before its end is there; undefined: nothing waits. */
  get waitsFrom(): number | undefined {
    return this.#start >= 0 && this.#asks && this.#sizeBytes <= MAX_DIGEST_KEY_BYTES
      ? this.#start
      : undefined;
  }

  /** The contents that ended in the block, and are in the pack. */
  leave(): ContentRows {
    const rows = this.#ended.rows();
    if (rows.count > 0) this.#ended = new ContentList();
    return rows;
  }

  begin(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
    this.#asks = this.#shared < MAX_SHARED && this.#cached.takes(sizeBytes);
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
    if (!this.#asks) return;
    const parts = this.#pack.parts(start, end);
    const place = this.#cached.find(this.#sizeBytes, this.#digest, start - this.#start, parts);
    this.#asks = place !== undefined;
    if (place === undefined) return;
    this.#pack.share(start, end, place);
    this.#isShared = true;
  }
}
