import { createHash } from 'node:crypto';
import { withRoom } from '../format/arrays.js';
import { type Digest, digestOfBytes } from '../format/digest.js';

/** A written layer, with the annotations for its descriptor. */
export interface WrittenLayer {
  readonly diffId: Digest;
  /** Length of the tar that the blob decodes to. */
  readonly tarBytes: number;
  readonly annotations: Readonly<Record<string, string>>;
}

/**
 * Writes a tar as the blob of a layer. The pieces of the tar must not change afterwards;
 * `onProgress` gets the bytes of each piece.
 */
export type LayerWriter = (
  tar: Iterable<Buffer>,
  write: (bytes: Buffer) => void,
  onProgress: (doneBytes: number) => void,
) => Promise<WrittenLayer>;

/** Hashes and counts the bytes of a tar. */
export class TarMeter {
  readonly #hash = createHash('sha256');
  tarBytes = 0;

  add(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.tarBytes += bytes.length;
  }

  /** Returns the digest of all bytes; to be called once. */
  diffId(): Digest {
    return digestOfBytes(this.#hash.digest());
  }
}

/** Short strings are joined up to this length before they are encoded. */
const PIECE_CHARS = 2 ** 20;

/** UTF-8 needs at most three bytes for each UTF-16 code unit. */
const MAX_BYTES_PER_CHAR = 3;

/**
 * A long text built from many short ones, encoded in one growing buffer: the tar-split of 60,000
 * files is 150 MB, and joining a list of pieces would need it twice.
 */
export class TextSpool {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;
  #text = '';

  add(text: string): void {
    this.#text += text;
    if (this.#text.length >= PIECE_CHARS) this.#flush();
  }

  /** Returns the complete text as UTF-8. */
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
