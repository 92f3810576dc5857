import { MessageChannel } from 'node:worker_threads';
import { fromFailure, inLayer, PullError, toFailure } from '../format/error.js';
import type { MetadataLocation } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { ReadMetadataResult } from '../pool/messages.js';
import type { PackId } from '../store/paths.js';
import { type FetchFigures, type KnownLayer, type WantedLayer, warnOfFallback, warnOfType } from './layer.js';
import type { PullContext } from './pull-context.js';

/**
 * Contents and chunks of one image: a million files, or 64 GB in large files, whose chunks have 64 KiB on average. Until they are
 * planned, 250,000 rows take 0.3 GB of memory and 400,000 take 0.4 GB. A layer beyond the limit is pulled as one stream.
 */
const MOST_CONTENTS = 2 ** 20;

const NO_COST: FetchFigures = { fetchedBytes: 0, requests: 0 };

/** What the layers of one pull share while their metadata is read. */
interface Reading {
  readonly context: PullContext;
  readonly withHeaders: boolean;
  /** Contents and chunks of all tables so far. */
  rows: number;
}

/**
 * Reads the metadata of all layers that have any, in order, as many at a time as the registry puts up with and the budget
 * allows; that of a blob that several layers name, once. Metadata that is malformed, lies about its digest or is more than there is room
 * for costs a warning, and the layer is pulled as one stream. `withHeaders`: as `ReadMetadataTask` has it.
 */
export async function readLayers(
  context: PullContext,
  wanted: readonly WantedLayer[],
  withHeaders = false,
): Promise<KnownLayer[]> {
  const reading: Reading = { context, withHeaders, rows: 0 };
  const running = new Set<Promise<unknown>>();
  const known = new Map<string, Promise<KnownLayer>>();
  const read: Array<Promise<KnownLayer>> = [];
  const add = (one: Promise<KnownLayer>) => {
    one.catch(() => {}); // it may fail before all are waited for
    read.push(one);
  };
  for (const layer of wanted) {
    if (layer.place === undefined) {
      add(Promise.resolve({ ...layer, cost: NO_COST }));
      continue;
    }
    const key = JSON.stringify([layer.blob.digest, layer.place]);
    const same = known.get(key);
    if (same !== undefined) {
      add(same.then((first) => likeFirst(reading, layer, first)));
      continue;
    }
    while (running.size >= context.concurrency.limit) await context.stop.guard(Promise.race(running));
    const one = readLayer(reading, layer, layer.place).finally(() => running.delete(one));
    running.add(one);
    known.set(key, one);
    add(one);
  }
  return context.stop.guard(Promise.all(read));
}

/** A layer of the same blob as `first`, whose metadata is the same. */
function likeFirst(reading: Reading, layer: WantedLayer, first: KnownLayer): KnownLayer {
  const { metadata, failedBefore, format } = first;
  const cost = NO_COST;
  if (metadata === undefined) return { ...layer, cost, format, ...(failedBefore && { failedBefore }) };
  try {
    countRows(reading, metadata.table);
    reading.context.decoded.noteTable(layer, metadata.table);
    return { ...layer, metadata, cost, format };
  } catch (error) {
    return asStream(reading.context, layer, cost, error);
  }
}

/** Adds a table to the rows of all layers. @throws PullError `unsupported` when there is no room for it */
function countRows(reading: Reading, table: LayerTable): void {
  const all = reading.rows + table.count + table.chunkTarStart.length;
  if (all > MOST_CONTENTS) {
    throw new PullError('unsupported', `with it the layers to pull have more than ${MOST_CONTENTS} files`);
  }
  reading.rows = all;
}

async function readLayer(reading: Reading, layer: WantedLayer, place: MetadataLocation): Promise<KnownLayer> {
  const { context } = reading;
  let cost = NO_COST;
  context.patience.asking(1);
  try {
    const { metadata, fetchedBytes, requests, failure } = await runBooked(reading, layer, place);
    cost = { fetchedBytes, requests };
    if (failure !== undefined) throw fromFailure(failure);
    if (requests > 0) context.concurrency.good();
    if (metadata === undefined) return { ...layer, cost, format: layer.compression };
    countRows(reading, metadata.table);
    context.decoded.noteTable(layer, metadata.table);
    if (metadata.tail !== undefined) context.packs.add(metadata.tail.pack as PackId);
    warnOfType(context.emit, layer, metadata.format === 'estargz' ? 'gzip' : 'zstd');
    return { ...layer, metadata, cost, format: metadata.format };
  } catch (error) {
    return asStream(context, layer, cost, error);
  } finally {
    context.patience.asking(-1);
  }
}

/** Runs the task, and books the memory that it asks for. While it waits for room, it asks no server. */
async function runBooked(
  { context: { patience, support, metadata }, withHeaders }: Reading,
  { blob }: WantedLayer,
  place: MetadataLocation,
): Promise<ReadMetadataResult> {
  const { port1, port2 } = new MessageChannel();
  let bookedBytes = 0;
  const book = async (bytes: number) => {
    metadata.give(bookedBytes);
    bookedBytes = 0;
    patience.asking(-1);
    try {
      metadata.count(bytes);
      await metadata.take(bytes);
      bookedBytes = bytes;
      port1.postMessage(null);
    } catch (error) {
      port1.postMessage(toFailure(error));
    } finally {
      patience.asking(1);
    }
  };
  port1.on('message', (bytes: number) => void book(bytes));
  try {
    return await support.run({ task: 'read-metadata', blob, place, withHeaders, port: port2 }, [port2]);
  } finally {
    port1.close();
    metadata.give(bookedBytes);
  }
}

/** A layer whose metadata is of no use. @throws PullError what is no reason to pull it as one stream */
function asStream(context: PullContext, layer: WantedLayer, cost: FetchFigures, error: unknown): KnownLayer {
  const failedBefore = inLayer(error, layer.blob.digest);
  if (!warnOfFallback(context, layer, error)) throw failedBefore;
  return { ...layer, cost, format: layer.compression, failedBefore };
}
