import { enlarged } from '../../src/format/arrays.js';
import { DIGEST_BYTES } from '../../src/format/digest.js';
import type { ContentRows } from '../../src/store/pack-writer.js';

/** Room for the first rows: a piece of 1 MiB has about 30 files. */
const FIRST_ROWS = 64;

/** Collects the contents that end in one piece, as flat rows: a piece can hold a million. */
export class ContentList {
  #count = 0;
  #digests = new Uint8Array(FIRST_ROWS * DIGEST_BYTES);
  #packOffset = new Float64Array(FIRST_ROWS);
  #lengthBytes = new Float64Array(FIRST_ROWS);
  readonly #stated: boolean;

  /** `stated`: the digests are the metadata's word. */
  constructor(stated = false) {
    this.#stated = stated;
  }

  add(digest: Uint8Array, packOffset: number, lengthBytes: number): void {
    if (this.#count === this.#packOffset.length) this.#grow();
    this.#digests.set(digest, this.#count * DIGEST_BYTES);
    this.#packOffset[this.#count] = packOffset;
    this.#lengthBytes[this.#count] = lengthBytes;
    this.#count += 1;
  }

  /** The rows; nothing is added any more. */
  rows(): ContentRows {
    const count = this.#count;
    return {
      count,
      stated: this.#stated,
      digests: this.#digests.subarray(0, count * DIGEST_BYTES),
      packOffset: this.#packOffset.subarray(0, count),
      lengthBytes: this.#lengthBytes.subarray(0, count),
    };
  }

  #grow(): void {
    const rows = this.#count * 2;
    this.#digests = enlarged(this.#digests, rows * DIGEST_BYTES);
    this.#packOffset = enlarged(this.#packOffset, rows);
    this.#lengthBytes = enlarged(this.#lengthBytes, rows);
  }
}
