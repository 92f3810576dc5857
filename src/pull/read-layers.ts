import { inLayer, PullError } from '../format/error.js';
import type { PullContext } from './context.js';
import type { ChunkedLayer, WantedLayer } from './layer.js';

/** Decoded metadata in memory at a time; a layer above it is read alone. 20,000 files have about 30 MB. */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/** Contents (and chunks of large ones) of one image: two million files take about 200 MB of rows, and images have a tenth of that. */
const MOST_CONTENTS = 2 * 2 ** 20;

/** Reads the metadata of all layers, in order, as many at a time as the budget allows. */
export async function readLayers(
  context: PullContext,
  wanted: readonly WantedLayer[],
): Promise<ChunkedLayer[]> {
  const running = new Set<Promise<unknown>>();
  const read: Array<Promise<ChunkedLayer>> = [];
  let inUse = 0;
  let contents = 0;
  for (const layer of wanted) {
    const { toc, tarSplit } = layer.positions;
    const bytes = Math.max(toc.rawBytes + tarSplit.rawBytes, tarSplit.end - toc.start);
    while (running.size > 0 && inUse + bytes > METADATA_BUDGET_BYTES)
      await context.stop.guard(Promise.race(running));
    inUse += bytes;
    const one = readLayer(context, layer).then((read) => {
      contents += read.table.count + read.table.chunkTarStart.length;
      if (contents > MOST_CONTENTS) throw tooManyContents();
      return read;
    });
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

function tooManyContents(): PullError {
  return new PullError('unsupported', `the layers to pull have more than ${MOST_CONTENTS} files`);
}

async function readLayer(context: PullContext, layer: WantedLayer): Promise<ChunkedLayer> {
  context.patience.asking(1);
  try {
    const result = await context.support.run({
      task: 'read-metadata',
      blob: layer.blob,
      toc: layer.positions.toc,
      tarSplit: layer.positions.tarSplit,
    });
    return {
      ...layer,
      table: result.table,
      tarSplitDigest: result.tarSplitDigest,
      metadataFetchedBytes: result.fetchedBytes,
      metadataRequests: result.requests,
    };
  } catch (error) {
    throw inLayer(error, layer.blob.digest);
  } finally {
    context.patience.asking(-1);
  }
}
