import { createHash } from 'node:crypto';
import { withRoom } from '../format/arrays.js';
import { type Digest, digestOfBytes } from '../format/digest.js';

/** What has been written, and what the layer's descriptor must say about it. */
export interface WrittenLayer {
  readonly diffId: Digest;
  /** Of the tar that the blob decodes to. */
  readonly tarBytes: number;
  readonly annotations: Readonly<Record<string, string>>;
}

/**
 * Writes a tar as the blob of a layer. Pieces of the tar must not change after they were handed over; `onProgress` is
 * told the bytes of each piece.
 */
export type LayerWriter = (
  tar: Iterable<Buffer>,
  write: (bytes: Buffer) => void,
  onProgress: (doneBytes: number) => void,
) => Promise<WrittenLayer>;

/** Hashes and counts the tar that a blob will decode to. */
export class TarMeter {
  readonly #hash = createHash('sha256');
  tarBytes = 0;

  add(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.tarBytes += bytes.length;
  }

  /** What the bytes so far hash to; ends the meter. */
  diffId(): Digest {
    return digestOfBytes(this.#hash.digest());
  }
}

/** Short strings are joined up to this length before they become bytes. */
const PIECE_CHARS = 2 ** 20;

/** UTF-8 takes at most three bytes for each unit of a JavaScript string. */
const MAX_BYTES_PER_CHAR = 3;

/**
 * A long text built from many short ones, as bytes in one growing buffer: the tar-split of 60,000 files is 150 MB,
 * which as a list of pieces would be in memory twice when they are joined.
 */
export class TextSpool {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  #text = '';

  add(text: string): void {
    this.#text += text;
    if (this.#text.length >= PIECE_CHARS) this.#flush();
  }

  /** The whole text as UTF-8. */
  toBuffer(): Buffer {
    this.#flush();
    return this.#bytes.subarray(0, this.#length);
  }

  #flush(): void {
    const needed = this.#length + this.#text.length * MAX_BYTES_PER_CHAR;
    this.#bytes = withRoom(this.#bytes, this.#length, needed);
    this.#length += this.#bytes.write(this.#text, this.#length);
    this.#text = '';
  }
}
