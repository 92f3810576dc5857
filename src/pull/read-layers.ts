import { fromFailure, inLayer, PullError } from '../format/error.js';
import type { MetadataPlace } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { PackId } from '../store/paths.js';
import type { PullContext } from './context.js';
import { warnOfFallback } from './fall-back.js';
import type { FetchFigures, KnownLayer, WantedLayer } from './layer.js';

/** Decoded metadata in memory at a time; a layer above it is read alone. 20,000 files have about 30 MB. */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/** Decoded metadata of a layer whose annotations do not state its length. */
const UNKNOWN_METADATA_BYTES = 16 * 2 ** 20;

/** Contents (and chunks of large ones) of one image: two million files take about 200 MB of rows, and images have a tenth of that. */
const MOST_CONTENTS = 2 * 2 ** 20;

/**
 * Reads the metadata of all layers that have any, in order, as many at a time as the registry puts up with and the budget
 * allows. Metadata that is malformed, lies about its digest or has more files than there is room for costs a warning, and the layer is
 * pulled as one stream.
 */
export async function readLayers(
  context: PullContext,
  wanted: readonly WantedLayer[],
): Promise<KnownLayer[]> {
  const running = new Set<Promise<unknown>>();
  const read: Array<Promise<KnownLayer>> = [];
  const rows = { count: 0 };
  let inUse = 0;
  for (const layer of wanted) {
    if (layer.place === undefined) {
      read.push(Promise.resolve({ ...layer, cost: { fetchedBytes: 0, requests: 0 } }));
      continue;
    }
    const bytes = budgetOf(layer.place);
    const mayBegin = () => running.size < context.concurrency.limit && inUse + bytes <= METADATA_BUDGET_BYTES;
    while (running.size > 0 && !mayBegin()) await context.stop.guard(Promise.race(running));
    inUse += bytes;
    const one = readLayer(context, layer, layer.place, rows);
    const done = one.finally(() => {
      inUse -= bytes;
      running.delete(done);
    });
    done.catch(() => {});
    running.add(done);
    read.push(one);
  }
  return context.stop.guard(Promise.all(read));
}

function budgetOf(place: MetadataPlace): number {
  if (place.by === 'footer') return UNKNOWN_METADATA_BYTES;
  const { toc, tarSplit = toc } = place;
  return Math.max(toc.rawBytes + tarSplit.rawBytes, tarSplit.end - toc.start);
}

/** Adds a table to `rows`, those of all layers. @throws PullError `unsupported` when there is no room for it */
function countRows(table: LayerTable, rows: { count: number }): void {
  const all = rows.count + table.count + table.chunkTarStart.length;
  if (all > MOST_CONTENTS) {
    throw new PullError('unsupported', `with it the layers to pull have more than ${MOST_CONTENTS} files`);
  }
  rows.count = all;
}

async function readLayer(
  context: PullContext,
  layer: WantedLayer,
  place: MetadataPlace,
  rows: { count: number },
): Promise<KnownLayer> {
  let cost: FetchFigures = { fetchedBytes: 0, requests: 0 };
  context.patience.asking(1);
  try {
    const result = await context.support.run({ task: 'read-metadata', blob: layer.blob, place });
    const { metadata, fetchedBytes, requests, failure } = result;
    cost = { fetchedBytes, requests };
    if (failure !== undefined) throw fromFailure(failure);
    if (requests > 0) context.concurrency.good();
    if (metadata === undefined) return { ...layer, cost, format: layer.compression };
    countRows(metadata.table, rows);
    if (metadata.tail !== undefined) context.packs.add(metadata.tail.pack as PackId);
    return { ...layer, metadata, cost, format: metadata.format };
  } catch (error) {
    const failedBefore = inLayer(error, layer.blob.digest);
    if (!warnOfFallback(context, layer, error)) throw failedBefore;
    return { ...layer, cost, format: layer.compression, failedBefore };
  } finally {
    context.patience.asking(-1);
  }
}
