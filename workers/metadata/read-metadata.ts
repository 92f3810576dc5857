import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, parseDigest } from '../../src/format/digest.js';
import { PullError, toFailure } from '../../src/format/error.js';
import type { MetadataLocation } from '../../src/format/layer-format.js';
import { buildLayerTable } from '../../src/format/layer-table-builder.js';
import { CHUNKED_FOOTER_BYTES, parseChunkedFooter } from '../../src/format/metadata-position.js';
import { tocTarSplitDigest } from '../../src/format/toc.js';
import { buildTocOnlyTable } from '../../src/format/toc-only-table-builder.js';
import { SKIPPABLE_HEADER_BYTES } from '../../src/format/zstd-frame.js';
import type {
  Fetched,
  LayerMetadata,
  MetadataPart,
  MetadataPartWithDigest,
  ReadMetadataResult,
  ReadMetadataTask,
} from '../../src/pool/messages.js';
import { releaseLargeGarbage } from '../garbage.js';
import {
  type BookMetadata,
  MetadataBooking,
  MetadataSource,
  readTarSplit,
  readToc,
} from './metadata-source.js';
import { readStargz } from './read-stargz.js';
import { writeHeaders } from './write-headers.js';

/**
 * Reads TOC and tar-split from the store, or fetches, verifies and stores them, and builds the
 * layer's table.
 */
export async function readMetadata({
  blob,
  location,
  withHeaders,
  port,
}: ReadMetadataTask): Promise<ReadMetadataResult> {
  const source = new MetadataSource(blob);
  const booking = new MetadataBooking(port);
  try {
    const metadata = await read(source, { blob, withHeaders }, location, booking.book);
    return metadata === undefined ? costOf(source) : { metadata, ...costOf(source) };
  } catch (error) {
    return { failure: toFailure(error), ...costOf(source) };
  } finally {
    port.close();
    // Before the next layer gets the memory.
    await releaseLargeGarbage(booking.memoryBytes);
  }
}

function costOf({ fetchedBytes, requests }: MetadataSource): Fetched {
  return { fetchedBytes, requests };
}

async function read(
  source: MetadataSource,
  layer: Pick<ReadMetadataTask, 'blob' | 'withHeaders'>,
  location: MetadataLocation,
  book: BookMetadata,
): Promise<LayerMetadata | undefined> {
  if (location.by === 'annotations') {
    await bookParts(book, location.toc, location.tarSplit);
    return readChunked(source, location.toc, location.tarSplit, layer.withHeaders);
  }
  const { blob } = layer;
  if (location.compression === 'gzip') {
    const metadata = await readStargz(source, layer, location.tocDigest, book);
    return metadata ?? (location.otherwise && read(source, layer, location.otherwise, book));
  }
  const footer = parseChunkedFooter(await source.tail(CHUNKED_FOOTER_BYTES), blob.sizeBytes);
  if (footer === undefined) return undefined;
  const { toc, tarSplit } = footer;
  await bookParts(book, toc, tarSplit);
  // Nothing states the digest: the store gets the actual one.
  const digest = digestOfBytes(
    createHash('sha256')
      .update(await source.part(toc, tarSplit ?? toc))
      .digest(),
  );
  return readChunked(source, { ...toc, digest }, tarSplit, layer.withHeaders);
}

function bookParts(book: BookMetadata, toc: MetadataPart, tarSplit: MetadataPart | undefined): Promise<void> {
  const lengthOf = ({ start, end, uncompressedBytes }: MetadataPart) => ({
    bytes: end - start,
    uncompressedBytes,
  });
  return book(lengthOf(toc), tarSplit && lengthOf(tarSplit));
}

async function readChunked(
  source: MetadataSource,
  toc: MetadataPartWithDigest,
  tarSplit: MetadataPart | undefined,
  withHeaders: boolean | undefined,
): Promise<LayerMetadata> {
  const json = await readToc(source, toc, tarSplit);
  const dataEnd = toc.start - SKIPPABLE_HEADER_BYTES;
  const storedToc = { digest: toc.digest, uncompressedBytes: toc.uncompressedBytes };
  if (tarSplit === undefined) {
    return {
      format: 'zstd:chunked-no-tarsplit',
      table: buildTocOnlyTable({ toc: json, dataEnd, compression: 'zstd' }),
      metadataBytes: toc.end - toc.start,
      toc: storedToc,
      ...(withHeaders && { headers: writeHeaders(json) }),
    };
  }
  const split = { ...tarSplit, digest: tarSplitDigest(json, tarSplit.digest) };
  return {
    format: 'zstd:chunked',
    table: buildLayerTable({ toc: json, tarSplit: await readTarSplit(source, split), tocStart: dataEnd }),
    metadataBytes: toc.end - toc.start + (tarSplit.end - tarSplit.start),
    toc: storedToc,
    tarSplit: split,
  };
}

/** Returns the digest that the TOC or the annotation states. If both do, they must agree. */
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
