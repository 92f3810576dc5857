import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, parseDigest } from '../src/format/digest.js';
import { PullError } from '../src/format/error.js';
import { buildLayerTable } from '../src/format/layer-table-builder.js';
import { tocTarSplitDigest } from '../src/format/toc.js';
import type { BlobSource, MetadataPart, ReadMetadataResult, ReadMetadataTask } from '../src/pool/messages.js';
import { getBlob, putBlob } from '../src/store/blob-cache.js';
import { paths } from './context.js';
import { decodeMetadata } from './metadata-blob.js';
import { rangeClient, rangeEvents } from './range-client.js';

/** Two metadata parts no further apart than this are fetched by one request (they are neighbours in practice). */
const ONE_REQUEST_GAP_BYTES = 64 * 1024;

/** Fetches what is not kept of TOC and tar-split, checks both digests, keeps both, and builds the layer's table. */
export async function readMetadata(task: ReadMetadataTask): Promise<ReadMetadataResult> {
  const { blob, toc, tarSplit } = task;
  const source = new PartSource(blob);
  const kept = getBlob(paths, toc.digest);
  const tocFrame = kept ?? (await fetchPart(source, toc, tarSplit, { digest: toc.digest, ...TOC }));

  const tocJson = await decodeMetadata(tocFrame, toc.rawBytes, 'TOC');
  const digest = tarSplitDigest(tocJson, tarSplit.digest);
  const keptSplit = getBlob(paths, digest);
  const splitFrame = keptSplit ?? (await fetchPart(source, tarSplit, tarSplit, { digest, ...TAR_SPLIT }));

  const table = buildLayerTable({
    toc: tocJson,
    tarSplit: await decodeMetadata(splitFrame, tarSplit.rawBytes, 'tar-split'),
    tocStart: toc.start - SKIPPABLE_HEADER_BYTES,
  });
  return { table, tarSplitDigest: digest, fetchedBytes: source.fetchedBytes, requests: source.requests };
}

/** A skippable frame's magic and length stand before the content that the annotations point at (RFC 8878, 3.1.2). */
const SKIPPABLE_HEADER_BYTES = 8;

/** The digest that the TOC or the annotation states; when both do, they must agree. */
function tarSplitDigest(toc: Buffer, annotated: Digest | undefined): Digest {
  const stated = tocTarSplitDigest(toc);
  if (stated !== undefined && annotated !== undefined && stated !== annotated) {
    throw new PullError(
      'metadata-malformed',
      'the TOC and the annotation tarsplit-checksum state different digests',
    );
  }
  const digest = stated ?? annotated;
  if (digest === undefined) {
    throw new PullError(
      'metadata-malformed',
      'neither the TOC (tarSplitDigest) nor an annotation states the digest of tar-split',
    );
  }
  return parseDigest(digest, 'tarSplitDigest');
}

/** How messages name the two parts, and what states their digests. */
const TOC = { what: 'TOC', field: 'manifest-checksum' };
const TAR_SPLIT = { what: 'tar-split', field: 'tarSplitDigest' };

/** Bytes with the wrong digest are fetched once more: something on the way may have kept a broken copy. */
const TRIES_FOR_DIGEST = 2;

/** The bytes of `part`, checked and kept; `next` as in `PartSource.part`. */
async function fetchPart(
  source: PartSource,
  part: MetadataPart,
  next: MetadataPart,
  expected: { digest: Digest; what: string; field: string },
): Promise<Buffer> {
  const { digest, what, field } = expected;
  for (let tries = 1; ; tries++) {
    const bytes = await source.part(part, next);
    const actual = digestOfBytes(createHash('sha256').update(bytes).digest());
    if (actual === digest) {
      await putBlob(paths, digest, bytes);
      return bytes;
    }
    if (tries === TRIES_FOR_DIGEST) {
      throw new PullError(
        'digest-mismatch',
        `the ${what} does not match ${field}: expected ${digest}, got ${actual}, twice`,
      );
    }
    source.forget();
  }
}

/** Fetches parts of one blob; what one request brought along for a later part is remembered. */
class PartSource {
  fetchedBytes = 0;
  requests = 0;
  readonly #blob: BlobSource;
  #bytes = Buffer.alloc(0);
  #start = 0;

  constructor(blob: BlobSource) {
    this.#blob = blob;
  }

  /** The bytes of `part`; `next`, when it follows closely, comes in the same request. */
  async part(part: MetadataPart, next: MetadataPart): Promise<Buffer> {
    if (!this.#has(part)) {
      const near = next.start >= part.end && next.start - part.end <= ONE_REQUEST_GAP_BYTES;
      await this.#fetch(part.start, near ? next.end : part.end);
    }
    return this.#bytes.subarray(part.start - this.#start, part.end - this.#start);
  }

  /** What is asked for next is fetched, whatever is at hand. */
  forget(): void {
    this.#bytes = Buffer.alloc(0);
  }

  #has(part: MetadataPart): boolean {
    return part.start >= this.#start && part.end <= this.#start + this.#bytes.length;
  }

  async #fetch(start: number, end: number): Promise<void> {
    const { fetchRange, client } = await rangeClient();
    const bytes = Buffer.allocUnsafeSlow(end - start);
    let filled = 0;
    const outcome = await fetchRange(client, {
      blob: this.#blob,
      start,
      end,
      onBytes: (chunk) => {
        filled += chunk.copy(bytes, filled);
      },
      events: rangeEvents,
    });
    this.fetchedBytes += outcome.receivedBytes;
    this.requests += outcome.requests;
    this.#bytes = bytes;
    this.#start = start;
  }
}
