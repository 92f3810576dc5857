import type { Digest } from '../format/digest.js';
import { deleteBlob } from '../store/blob-cache.js';
import type { ExtentList } from '../store/extents.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PullContext } from './context.js';
import type { ChunkedLayer } from './layer.js';

/** Publishes a proven layer and drops its metadata, which only an unproven one needs. */
export async function publishLayer(
  context: PullContext,
  layer: ChunkedLayer,
  extents: ExtentList,
): Promise<void> {
  await writeLayerRecord(context.paths, { diffId: layer.diffId, extents });
  await dropMetadata(context, layer.positions.toc.digest, layer.tarSplitDigest);
}

async function dropMetadata(context: PullContext, ...digests: Digest[]): Promise<void> {
  for (const digest of digests) await deleteBlob(context.paths, digest);
}
