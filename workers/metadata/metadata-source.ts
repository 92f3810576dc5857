import { createHash } from 'node:crypto';
import type { MessagePort } from 'node:worker_threads';
import { type Digest, digestOfBytes } from '../../src/format/digest.js';
import { type Failure, fromFailure, PullError } from '../../src/format/error.js';
import { type MetadataLength, metadataMemoryBytes } from '../../src/format/metadata-position.js';
import type { MetadataPart, MetadataPartWithDigest } from '../../src/pool/messages.js';
import { NO_ENDPOINT } from '../../src/registry/endpoint-state.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { MAX_DIGEST_TRIES } from '../../src/registry/retry-rules.js';
import { getBlob, putBlob } from '../../src/store/image-record.js';
import { paths } from '../context.js';
import { fullBlobReceiver } from '../fetch/full-blob.js';
import { countingEvents, rangeClient } from '../fetch/range-client.js';
import { decodeMetadata } from './metadata-blob.js';

/**
 * Two metadata parts no further apart than this are fetched by one request (they are neighbours in
 * practice).
 */
const ONE_REQUEST_GAP_BYTES = 64 * 1024;

/** Returns the decoded TOC. Fetches `tarSplit` with it if it follows closely. */
export async function readToc(
  source: MetadataSource,
  toc: MetadataPartWithDigest,
  tarSplit: MetadataPart = toc,
): Promise<Buffer> {
  const expected = { digest: toc.digest, what: 'TOC', field: 'manifest-checksum' };
  return decodeMetadata(await readPart(source, toc, tarSplit, expected), toc.uncompressedBytes, 'TOC');
}

/**
 * Returns the decoded tar-split, from the store or fetched: another pull of the layer may have
 * deleted it.
 */
export async function readTarSplit(
  source: MetadataSource,
  tarSplit: MetadataPartWithDigest,
): Promise<Buffer> {
  const expected = { digest: tarSplit.digest, what: 'tar-split', field: 'tarSplitDigest' };
  return decodeMetadata(
    await readPart(source, tarSplit, tarSplit, expected),
    tarSplit.uncompressedBytes,
    'tar-split',
  );
}

interface Expected {
  readonly digest: Digest;
  /** For messages: the name of the part, and what states its digest. */
  readonly what: string;
  readonly field: string;
}

/**
 * Returns the bytes of `part` with the right digest, from the store or fetched; `next` as in
 * `MetadataSource.part`.
 */
async function readPart(
  source: MetadataSource,
  part: MetadataPart,
  next: MetadataPart,
  { digest, what, field }: Expected,
): Promise<Buffer> {
  const stored = getBlob(paths, digest, part.end - part.start);
  if (stored !== undefined) return stored;
  for (let tries = 1; ; tries++) {
    const bytes = await source.part(part, next);
    const actual = digestOfBytes(createHash('sha256').update(bytes).digest());
    if (actual === digest) {
      await putBlob(paths, digest, bytes);
      return bytes;
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
  async part(part: Range, next: Range): Promise<Buffer> {
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
    return this.part({ start, end: sizeBytes }, { start, end: sizeBytes });
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
    const { events, totals, sender } = countingEvents();
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

/**
 * Reserves memory for the metadata of a layer; resolves when it is available.
 * Rejects with PullError `metadata-malformed` or `unsupported` if it never will be.
 */
export type BookMetadata = (toc: MetadataLength, tarSplit?: MetadataLength) => Promise<void>;

/** Reserves memory at the main thread, through a port. A new reservation replaces the last one. */
export class MetadataBooking {
  /** The reserved memory. */
  memoryBytes = 0;
  readonly #port: MessagePort;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  readonly book: BookMetadata = async (toc, tarSplit) => {
    const memoryBytes = metadataMemoryBytes(toc, tarSplit);
    const refusal = await new Promise<Failure | null>((resolve) => {
      this.#port.once('message', resolve);
      this.#port.postMessage(memoryBytes);
    });
    if (refusal !== null) throw fromFailure(refusal);
    this.memoryBytes = memoryBytes;
  };
}
