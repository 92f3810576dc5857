import { MessageChannel } from 'node:worker_threads';
import { fromFailure, inLayer, PullError, toFailure } from '../format/error.js';
import type { MetadataLocation } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { ReadMetadataResult } from '../pool/messages.js';
import {
  type FetchFigures,
  type KnownLayer,
  type MissingLayer,
  warnOfFallback,
  warnOfType,
} from './layer.js';
import type { PullContext } from './pull-context.js';

/**
 * Contents and chunks of one image: a million files, or 64 GB in large files, whose chunks have 64
 * KiB on average. Until they are planned, 250,000 rows take 0.3 GB of memory and 400,000 take 0.4
 * GB. A layer beyond the limit is pulled as an opaque one.
 */
const MAX_CONTENTS = 2 ** 20;

const NO_COST: FetchFigures = { fetchedBytes: 0, requests: 0 };

/** The state that the layers of one pull share while their metadata is read. */
interface Reading {
  readonly context: PullContext;
  readonly withHeaders: boolean;
  /** Contents and chunks of all tables so far. */
  rows: number;
}

/**
 * Reads the metadata of all layers that have any, in order, once for each blob, and as many at a
 * time as the concurrency limit and the budget allow. A layer whose metadata is malformed, has a
 * wrong digest or exceeds a limit is pulled as an opaque one, with a warning. `withHeaders` as in
 * `ReadMetadataTask`.
 * @throws PullError as fetching does
 */
export async function readLayers(
  context: PullContext,
  missing: readonly MissingLayer[],
  withHeaders = false,
): Promise<KnownLayer[]> {
  const reading: Reading = { context, withHeaders, rows: 0 };
  const running = new Set<Promise<unknown>>();
  const known = new Map<string, Promise<KnownLayer>>();
  const read: Array<Promise<KnownLayer>> = [];
  const add = (one: Promise<KnownLayer>) => {
    one.catch(() => {}); // awaited below, with the others
    read.push(one);
  };
  for (const layer of missing) {
    if (layer.place === undefined) {
      add(Promise.resolve({ ...layer, cost: NO_COST }));
      continue;
    }
    const key = JSON.stringify([layer.blob.digest, layer.place]);
    const same = known.get(key);
    if (same !== undefined) {
      add(same.then((first) => withMetadataOf(first, reading, layer)));
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

/** A layer with the blob, and so with the metadata, of `first`. */
function withMetadataOf(first: KnownLayer, reading: Reading, layer: MissingLayer): KnownLayer {
  const { metadata, failedBefore, format } = first;
  const cost = NO_COST;
  if (metadata === undefined) return { ...layer, cost, format, ...(failedBefore && { failedBefore }) };
  try {
    countRows(reading, metadata.table);
    reading.context.decoded.noteTable(layer, metadata.table);
    return { ...layer, metadata, cost, format };
  } catch (error) {
    return asOpaque(reading.context, layer, cost, error);
  }
}

/**
 * Adds the rows of a table to those of all layers.
 * @throws PullError `unsupported` beyond the limit
 */
function countRows(reading: Reading, table: LayerTable): void {
  const all = reading.rows + table.count + table.chunkTarStart.length;
  if (all > MAX_CONTENTS) {
    throw new PullError('unsupported', `with it, the layers to pull have more than ${MAX_CONTENTS} files`);
  }
  reading.rows = all;
}

async function readLayer(
  reading: Reading,
  layer: MissingLayer,
  place: MetadataLocation,
): Promise<KnownLayer> {
  const { context } = reading;
  let cost = NO_COST;
  context.retries.countRequests(1);
  try {
    const { metadata, fetchedBytes, requests, failure } = await readMetadata(reading, layer, place);
    cost = { fetchedBytes, requests };
    if (failure !== undefined) throw fromFailure(failure);
    if (requests > 0) context.concurrency.good();
    if (metadata === undefined) return { ...layer, cost, format: layer.compression };
    countRows(reading, metadata.table);
    context.decoded.noteTable(layer, metadata.table);
    if (metadata.tail !== undefined) context.packs.add(metadata.tail.pack);
    warnOfType(context.emit, layer, metadata.format === 'estargz' ? 'gzip' : 'zstd');
    return { ...layer, metadata, cost, format: metadata.format };
  } catch (error) {
    return asOpaque(context, layer, cost, error);
  } finally {
    context.retries.countRequests(-1);
  }
}

/**
 * Runs the task, and acquires the memory that it needs. A task that waits for memory sends no
 * request.
 */
async function readMetadata(
  { context: { retries, support, metadata }, withHeaders }: Reading,
  { blob }: MissingLayer,
  place: MetadataLocation,
): Promise<ReadMetadataResult> {
  const { port1, port2 } = new MessageChannel();
  let acquiredBytes = 0;
  const acquire = async (bytes: number) => {
    metadata.release(acquiredBytes);
    acquiredBytes = 0;
    retries.countRequests(-1);
    try {
      metadata.count(bytes);
      await metadata.acquire(bytes);
      acquiredBytes = bytes;
      port1.postMessage(null);
    } catch (error) {
      port1.postMessage(toFailure(error));
    } finally {
      retries.countRequests(1);
    }
  };
  port1.on('message', (bytes: number) => void acquire(bytes));
  try {
    return await support.run({ task: 'read-metadata', blob, place, withHeaders, port: port2 }, [port2]);
  } finally {
    port1.close();
    metadata.release(acquiredBytes);
  }
}

/** A layer whose metadata failed. @throws the error if an opaque pull cannot help */
function asOpaque(context: PullContext, layer: MissingLayer, cost: FetchFigures, error: unknown): KnownLayer {
  const failedBefore = inLayer(error, layer.blob.digest);
  if (!warnOfFallback(context, layer, error)) throw failedBefore;
  return { ...layer, cost, format: layer.compression, failedBefore };
}
