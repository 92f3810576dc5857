import { deleteBlob } from '../store/blob-cache.js';
import type { ExtentList } from '../store/extents.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PullContext } from './context.js';
import type { KnownLayer } from './layer.js';

/** Publishes a proven layer and drops its metadata, which only an unproven one needs. */
export async function publishLayer(
  context: PullContext,
  layer: KnownLayer,
  extents: ExtentList,
): Promise<void> {
  await writeLayerRecord(context.paths, { diffId: layer.diffId, extents });
  for (const part of [layer.metadata?.toc, layer.metadata?.tarSplit]) {
    if (part !== undefined) await deleteBlob(context.paths, part.digest);
  }
}
