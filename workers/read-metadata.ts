import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, parseDigest } from '../src/format/digest.js';
import { PullError, toFailure } from '../src/format/error.js';
import { CHUNKED_FOOTER_BYTES, parseChunkedFooter } from '../src/format/footer.js';
import type { MetadataPlace } from '../src/format/layer-format.js';
import { buildLayerTable } from '../src/format/layer-table-builder.js';
import { tocTarSplitDigest } from '../src/format/toc.js';
import { buildUnsplitTable } from '../src/format/unsplit-table-builder.js';
import { SKIPPABLE_HEADER_BYTES } from '../src/format/zstd-frame.js';
import type {
  BlobSource,
  Fetched,
  LayerMetadata,
  MetadataPart,
  ReadMetadataResult,
  ReadMetadataTask,
} from '../src/pool/messages.js';
import { releaseLargeGarbage } from './garbage.js';
import { MetadataSource, readTarSplit, readToc } from './metadata-source.js';
import { readStargz } from './read-stargz.js';

/** Fetches what is not kept of TOC and tar-split, checks their digests, keeps them, and builds the layer's table. */
export async function readMetadata({ blob, place }: ReadMetadataTask): Promise<ReadMetadataResult> {
  const source = new MetadataSource(blob);
  try {
    const metadata = await read(source, blob, place);
    if (metadata === undefined) return costOf(source);
    void releaseLargeGarbage(metadata.rawBytes);
    return { metadata: metadata.layer, ...costOf(source) };
  } catch (error) {
    return { failure: toFailure(error), ...costOf(source) };
  }
}

function costOf({ fetchedBytes, requests }: MetadataSource): Fetched {
  return { fetchedBytes, requests };
}

/** A layer's metadata, and the length of all that was decoded for it. */
export interface ReadLayer {
  readonly layer: LayerMetadata;
  readonly rawBytes: number;
}

async function read(
  source: MetadataSource,
  blob: BlobSource,
  place: MetadataPlace,
): Promise<ReadLayer | undefined> {
  if (place.by === 'annotations') return readChunked(source, place.toc, place.tarSplit);
  if (place.compression === 'gzip') return readStargz(source, blob, place.tocDigest);
  const footer = parseChunkedFooter(await source.tail(CHUNKED_FOOTER_BYTES), blob.sizeBytes);
  if (footer === undefined) return undefined;
  const { toc, tarSplit } = footer;
  // Nothing states the digest: what the bytes have names them in the store.
  const digest = digestOfBytes(
    createHash('sha256')
      .update(await source.part(toc, tarSplit ?? toc))
      .digest(),
  );
  return readChunked(source, { ...toc, digest }, tarSplit);
}

async function readChunked(
  source: MetadataSource,
  toc: MetadataPart & { readonly digest: Digest },
  tarSplit: MetadataPart | undefined,
): Promise<ReadLayer> {
  const json = await readToc(source, toc, tarSplit);
  const dataEnd = toc.start - SKIPPABLE_HEADER_BYTES;
  const kept = { digest: toc.digest, rawBytes: toc.rawBytes };
  if (tarSplit === undefined) {
    const layer = {
      format: 'zstd:chunked-no-tarsplit',
      table: buildUnsplitTable({ toc: json, dataEnd, compression: 'zstd' }),
      metadataBytes: toc.end - toc.start,
      toc: kept,
    } as const;
    return { layer, rawBytes: toc.rawBytes };
  }
  const split = { ...tarSplit, digest: tarSplitDigest(json, tarSplit.digest) };
  const layer = {
    format: 'zstd:chunked',
    table: buildLayerTable({ toc: json, tarSplit: await readTarSplit(source, split), tocStart: dataEnd }),
    metadataBytes: toc.end - toc.start + (tarSplit.end - tarSplit.start),
    toc: kept,
    tarSplit: split,
  } as const;
  return { layer, rawBytes: toc.rawBytes + tarSplit.rawBytes };
}

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
