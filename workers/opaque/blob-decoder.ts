import {
  type Compression,
  compressionOf,
  HEAD_BYTES,
  otherCompression,
} from '../../src/format/layer-format.js';
import type { DecodedQueue } from './decoded-queue.js';
import { GzipDecoder } from './gzip-decoder.js';
import type { LargeWindows } from './large-windows.js';
import { type StreamDecoder, StreamProblem } from './stream-decoder.js';
import { ZstdDecoder } from './zstd-decoder.js';
import { bestZstdEngine } from './zstd-engine.js';

/** For a blob that is a tar already. */
class TarDecoder implements StreamDecoder {
  readonly #out: DecodedQueue;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  write(bytes: Buffer): Promise<void> {
    this.#out.push(Buffer.from(bytes));
    return this.#out.room();
  }

  end(): Promise<void> {
    return this.#out.drained();
  }

  async close(): Promise<void> {}
}

/**
 * Decodes a blob by the format of its first bytes, as other clients do: media types are often
 * wrong.
 */
export class BlobDecoder implements StreamDecoder {
  /** As stated, until the first bytes are known. */
  compression: Compression;
  readonly #out: DecodedQueue;
  readonly #windows: LargeWindows;
  #decoder: StreamDecoder | undefined;
  /** The first bytes, while they are too few to decide. */
  #head = Buffer.alloc(0);

  constructor(stated: Compression, out: DecodedQueue, windows: LargeWindows) {
    this.compression = stated;
    this.#out = out;
    this.#windows = windows;
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.#decoder !== undefined) return this.#decoder.write(bytes);
    const head = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    if (head.length >= HEAD_BYTES) return this.#begin(head).write(head);
    this.#head = Buffer.from(head);
  }

  async end(): Promise<void> {
    const head = this.#head;
    if (this.#decoder === undefined && head.length > 0) await this.#begin(head).write(head);
    await (this.#decoder ?? this.#begin(head)).end();
  }

  async close(): Promise<void> {
    await this.#decoder?.close();
  }

  #begin(bytes: Buffer): StreamDecoder {
    const head = bytes.subarray(0, HEAD_BYTES);
    const other = otherCompression(head);
    if (other !== undefined) {
      throw new StreamProblem(
        `is compressed by ${other}, which is not supported`,
        0,
        'unsupported',
        'decompress its layers with skopeo copy docker://IMAGE docker-archive:FILE, and push the image again from that file',
      );
    }
    this.compression = compressionOf(head, this.compression);
    this.#decoder = this.#create();
    return this.#decoder;
  }

  #create(): StreamDecoder {
    if (this.compression === 'gzip') return new GzipDecoder(this.#out);
    if (this.compression === 'zstd') return new ZstdDecoder(bestZstdEngine(), this.#out, this.#windows);
    return new TarDecoder(this.#out);
  }
}
