import { PullError } from '../../src/format/error.js';
import type { MetadataPart, MetadataPartWithDigest } from '../../src/pool/messages.js';
import { NO_ENDPOINT } from '../../src/registry/endpoint-state.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { MAX_DIGEST_TRIES } from '../../src/registry/retry-rules.js';
import { getBlob, putBlob, sha256Of } from '../../src/store/image-record.js';
import { paths } from '../context.js';
import { fullBlobReceiver } from '../fetch/fetch-opaque.js';
import { countingEvents, rangeClient } from '../fetch/range-client.js';
import { decodeMetadata } from './metadata-blob.js';

/**
 * Two metadata parts no further apart than this are fetched by one request (they are neighbours in
 * practice).
 */
const ONE_REQUEST_GAP_BYTES = 64 * 1024;

/** Returns the decoded TOC. Fetches `tarSplit` with it if it follows closely. */
export function readToc(
  source: MetadataSource,
  toc: MetadataPartWithDigest,
  tarSplit?: MetadataPart,
): Promise<Buffer> {
  return readPart(source, toc, tarSplit, 'TOC', 'manifest-checksum');
}

/**
 * Returns the decoded tar-split, from the store or fetched: another pull of the layer may have
 * deleted it.
 */
export function readTarSplit(source: MetadataSource, tarSplit: MetadataPartWithDigest): Promise<Buffer> {
  return readPart(source, tarSplit, undefined, 'tar-split', 'tarSplitDigest');
}

/** For messages: `what` is the part, `field` states its digest. */
async function readPart(
  source: MetadataSource,
  part: MetadataPartWithDigest,
  next: MetadataPart | undefined,
  what: string,
  field: string,
): Promise<Buffer> {
  const { digest, start, end, uncompressedBytes } = part;
  const stored = getBlob(paths, digest, end - start);
  if (stored !== undefined) return decodeMetadata(stored, uncompressedBytes, what);
  for (let tries = 1; ; tries++) {
    const bytes = await source.part(part, next);
    const actual = sha256Of(bytes);
    if (actual === digest) {
      await putBlob(paths, digest, bytes);
      return decodeMetadata(bytes, uncompressedBytes, what);
    }
    if (tries === MAX_DIGEST_TRIES) {
      throw new PullError(
        'digest-mismatch',
        `the ${what} does not match ${field}: expected ${digest}, got ${actual}, twice`,
      );
    }
    await source.forget();
  }
}

type Range = Pick<MetadataPart, 'start' | 'end'>;

/** Fetches parts of one blob, and keeps the bytes of the last request for later parts. */
export class MetadataSource {
  fetchedBytes = 0;
  requests = 0;
  readonly #blob: BlobSource;
  #bytes = Buffer.alloc(0);
  #start = 0;
  /** The endpoint that sent `#bytes`. */
  #sender = NO_ENDPOINT;

  constructor(blob: BlobSource) {
    this.#blob = blob;
  }

  /** Returns the bytes of `part`. Fetches `next` with it if it follows closely. */
  async part(part: Range, next = part): Promise<Buffer> {
    if (!this.#has(part)) {
      const near = next.start >= part.end && next.start - part.end <= ONE_REQUEST_GAP_BYTES;
      await this.#fetch(part.start, near ? next.end : part.end);
    }
    return this.#bytes.subarray(part.start - this.#start, part.end - this.#start);
  }

  /** Returns the bytes before `end` that the last request fetched. */
  before(end: number): Buffer {
    return this.#bytes.subarray(0, Math.max(0, end - this.#start));
  }

  /** Returns the last `maxBytes` bytes of the blob, or all of them. */
  async tail(maxBytes: number): Promise<Buffer> {
    const { sizeBytes } = this.#blob;
    const start = Math.max(0, sizeBytes - maxBytes);
    return this.part({ start, end: sizeBytes });
  }

  /** Drops wrong bytes. They are fetched again, from another endpoint if there is one. */
  async forget(): Promise<void> {
    this.#bytes = Buffer.alloc(0);
    const { choice } = await rangeClient();
    choice.lacks(this.#sender, this.#blob.digest);
  }

  #has(part: Range): boolean {
    return part.start >= this.#start && part.end <= this.#start + this.#bytes.length;
  }

  /**
   * Does not fetch the end of the range again if the last request had it: a guess may have fetched
   * the end of a long TOC.
   */
  async #fetch(start: number, end: number): Promise<void> {
    const { fetchRange } = await rangeClient();
    const bytes = Buffer.allocUnsafeSlow(end - start);
    const known = this.#start > start && this.#start < end && this.#start + this.#bytes.length >= end;
    const fetchEnd = known ? this.#start : end;
    if (known) this.#bytes.copy(bytes, fetchEnd - start, 0, end - fetchEnd);
    let filled = 0;
    const { events, totals, sender } = countingEvents('metadata');
    const fullBlob = fullBlobReceiver(this.#blob);
    try {
      await fetchRange({
        blob: this.#blob,
        start,
        end: fetchEnd,
        fullBlobInstead: fullBlob.begin,
        onBytes: (chunk) => {
          filled += chunk.copy(bytes, filled);
        },
        events,
      });
    } finally {
      fullBlob.close();
      this.fetchedBytes += totals.fetchedBytes;
      this.requests += totals.requests;
      this.#sender = sender();
    }
    this.#bytes = bytes;
    this.#start = start;
  }
}
