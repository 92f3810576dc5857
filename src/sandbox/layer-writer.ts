import { createHash } from 'node:crypto';
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
