import { type Digest, parseDigest } from '../src/format/digest.js';
import { PullError } from '../src/format/error.js';
import { buildLayerTable } from '../src/format/layer-table-builder.js';
import { tocTarSplitDigest } from '../src/format/toc.js';
import { SKIPPABLE_HEADER_BYTES } from '../src/format/zstd-frame.js';
import type { ReadMetadataResult, ReadMetadataTask } from '../src/pool/messages.js';
import { releaseLargeGarbage } from './garbage.js';
import { MetadataSource, readTarSplit, readToc } from './metadata-source.js';

/** Fetches what is not kept of TOC and tar-split, checks both digests, keeps both, and builds the layer's table. */
export async function readMetadata(task: ReadMetadataTask): Promise<ReadMetadataResult> {
  const result = await buildTable(task);
  void releaseLargeGarbage(task.toc.rawBytes + task.tarSplit.rawBytes);
  return result;
}

async function buildTable({ blob, toc, tarSplit }: ReadMetadataTask): Promise<ReadMetadataResult> {
  const source = new MetadataSource(blob);
  const tocJson = await readToc(source, toc, tarSplit);
  const digest = tarSplitDigest(tocJson, tarSplit.digest);
  const table = buildLayerTable({
    toc: tocJson,
    tarSplit: await readTarSplit(source, tarSplit, digest),
    tocStart: toc.start - SKIPPABLE_HEADER_BYTES,
  });
  return { table, tarSplitDigest: digest, fetchedBytes: source.fetchedBytes, requests: source.requests };
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
