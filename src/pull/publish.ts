import { deleteBlob } from '../store/blob-cache.js';
import type { ExtentList } from '../store/extents.js';
import { withRoomFrom } from '../store/full-disk.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PullContext } from './context.js';
import type { KnownLayer } from './layer.js';

/** Publishes a proven layer and drops its metadata, which only an unproven one needs. */
export async function publishLayer(
  context: PullContext,
  layer: KnownLayer,
  extents: ExtentList,
): Promise<void> {
  const record = { diffId: layer.diffId, extents };
  await withRoomFrom(context.follower, () => writeLayerRecord(context.paths, record));
  for (const part of [layer.metadata?.toc, layer.metadata?.tarSplit]) {
    if (part !== undefined) await deleteBlob(context.paths, part.digest);
  }
}
