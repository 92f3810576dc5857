import { MessageChannel } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer, PullError, toFailure } from '../format/error.js';
import type { MetadataLocation } from '../format/layer-format.js';
import { allocateTable, type LayerTable } from '../format/layer-table.js';
import { type CachedPart, type OpaqueBlob, totalsOf } from '../plan/opaque.js';
import { type PullPlan, planPull } from '../plan/plan.js';
import { type PlanLimits, planLimits } from '../plan/spans.js';
import type { LayerMetadata, ReadMetadataResult } from '../pool/messages.js';
import type { PackId } from '../store/paths.js';
import { ignoresRanges, measureBlobs } from './blob-locations.js';
import {
  type FetchFigures,
  type KnownLayer,
  type MissingLayer,
  sumOfFetches,
  warnOfFallback,
  warnOfType,
} from './layer.js';
import type { PullContext } from './pull-context.js';

/** Where every byte of the missing layers will come from. */
export interface LayersPlan {
  readonly limits: PlanLimits;
  /** The plan of the chunked layers, in which opaque layers are empty. */
  readonly chunked: PullPlan;
  /** The table that cached segments of `chunked` point into. */
  readonly packs: readonly PackId[];
  /** Undefined for chunked layers. */
  readonly opaque: ReadonlyArray<OpaqueBlob | undefined>;
}

/** What the plan says of one layer. `fetchBytes` and `requests` exclude those for metadata. */
export interface PlannedFigures {
  /** Null where it is unknown until the layer is decoded. */
  readonly tarBytes: number | null;
  readonly metadataBytes: number;
  readonly fetchBytes: number;
  readonly reuseBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
  /** Bytes to write for it, approximately. */
  readonly diskBytes: number;
}

/**
 * Does everything of a pull up to the first content byte.
 * @throws PullError as `measureBlobs` and `readLayers`
 */
export function prepareLayers(
  context: PullContext,
  missing: readonly MissingLayer[],
): Promise<PlannedLayers> {
  return context.stages.clock.within('metadata', () => prepare(context, missing));
}

interface PlannedLayers {
  readonly layers: readonly KnownLayer[];
  readonly plan: LayersPlan;
  readonly figures: readonly PlannedFigures[];
}

async function prepare(context: PullContext, missing: readonly MissingLayer[]): Promise<PlannedLayers> {
  const measured = await measureBlobs(
    context,
    missing.map(({ blob, otherUrls }) => ({ blob, urls: [blob.url, ...otherUrls] })),
  );
  const sized = missing.map((layer, i) => {
    const sizeBytes = measured[i]?.sizeBytes ?? layer.blob.sizeBytes;
    return { ...layer, blob: { ...layer.blob, sizeBytes } };
  });
  const layers = (await readLayers(context, sized)).map((layer, i) => {
    return { ...layer, cost: sumOfFetches([layer.cost, measured[i] ?? NO_COST]) };
  });
  const plan = await planLayers(context, layers);
  return { layers, plan, figures: layers.map((layer, i) => figuresOf(context, layer, plan, i)) };
}

/** The table of an opaque layer. */
const NO_CONTENTS: LayerTable = allocateTable({ count: 0, chunks: 0, dataEnd: 0, tarBytes: 0 });

/** Looks up what the store has of these layers, and plans what is left to fetch. */
async function planLayers(context: PullContext, layers: readonly KnownLayer[]): Promise<LayersPlan> {
  const opaqueBlobs = layers.filter((layer) => layer.metadata === undefined).map(({ blob }) => blob.digest);
  const tables = layers.map((layer) => layer.metadata?.table ?? NO_CONTENTS);
  const blobs = layers.map((layer) => layer.blob.digest);
  const task = { task: 'look-up', tables, blobs, opaqueBlobs } as const;
  const found = await context.stop.guard(context.support.run(task));
  const limits = planLimits(context.settings.connections);
  const toPlan = tables.map((table, i) => ({ table, ...found.layers[i]! }));
  const opaque = layers.map((layer) => {
    if (layer.metadata !== undefined) return undefined;
    const rows = found.opaque[opaqueBlobs.indexOf(layer.blob.digest)]!;
    return { blobBytes: layer.blob.sizeBytes, cached: cachedParts(found.packs, rows) };
  });
  return { limits, chunked: planPull(toPlan, limits), packs: found.packs, opaque };
}

function figuresOf(
  context: PullContext,
  { metadata, blob }: KnownLayer,
  plan: LayersPlan,
  i: number,
): PlannedFigures {
  const opaque = plan.opaque[i];
  if (opaque !== undefined) {
    const inRanges = totalsOf(opaque, plan.limits);
    const isOneRequest = inRanges.fetchBytes > 0 && ignoresRanges(context, blob);
    const totals = isOneRequest ? { fetchBytes: blob.sizeBytes, resumedBytes: 0, requests: 1 } : inRanges;
    // The blob, and a tar that is hardly ever shorter.
    const diskBytes = totals.fetchBytes + blob.sizeBytes;
    return { ...totals, tarBytes: null, metadataBytes: 0, reuseBytes: 0, diskBytes };
  }
  const { totals } = plan.chunked.layers[i]!;
  const { table, metadataBytes } = metadata!;
  const received = receivedWithMetadata(metadata!, plan, i);
  return {
    tarBytes: table.layout === 'tar-split' ? table.tarBytes : null,
    metadataBytes,
    fetchBytes: totals.fetchBytes - received.bytes,
    reuseBytes: totals.reusedBytes,
    resumedBytes: totals.resumedBytes,
    requests: totals.requests - received.requests,
    diskBytes: totals.decodedBytes + totals.inlineBytes,
  };
}

/**
 * Bytes of a layer's spans that were received with its metadata, and the number of requests they
 * save.
 */
function receivedWithMetadata({ lastBytes }: LayerMetadata, plan: LayersPlan, i: number) {
  const { firstSpan, endSpan } = plan.chunked.layers[i]!;
  const received = { bytes: 0, requests: 0 };
  if (lastBytes === undefined) return received;
  for (const { blobStart, blobEnd } of plan.chunked.spans.slice(firstSpan, endSpan)) {
    received.bytes += Math.max(0, blobEnd - Math.max(blobStart, lastBytes.blobStart));
    if (blobStart >= lastBytes.blobStart) received.requests += 1;
  }
  return received;
}

/** The parts of a blob that an earlier pull left in raw packs. */
export async function lookUpBlobParts(context: PullContext, blob: Digest): Promise<CachedPart[]> {
  const answer = await context.stop.guard(
    context.support.run({ task: 'look-up', tables: [], blobs: [], opaqueBlobs: [blob] }),
  );
  return cachedParts(answer.packs, answer.opaque[0]!);
}

function cachedParts(
  packs: readonly string[],
  rows: ReadonlyArray<Omit<CachedPart, 'pack'> & { readonly pack: number }>,
): CachedPart[] {
  return rows.map((row) => ({ ...row, pack: packs[row.pack]! }));
}

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
    if (layer.location === undefined) {
      add(Promise.resolve({ ...layer, cost: NO_COST }));
      continue;
    }
    const key = JSON.stringify([layer.blob.digest, layer.location]);
    const same = known.get(key);
    if (same !== undefined) {
      add(same.then((first) => withMetadataOf(first, reading, layer)));
      continue;
    }
    while (running.size >= context.concurrency.limit) await context.stop.guard(Promise.race(running));
    const one = readLayer(reading, layer, layer.location).finally(() => running.delete(one));
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
  location: MetadataLocation,
): Promise<KnownLayer> {
  const { context } = reading;
  let cost = NO_COST;
  context.retries.countRequests(1);
  try {
    const { metadata, fetchedBytes, requests, failure } = await readMetadata(reading, layer, location);
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
  location: MetadataLocation,
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
    return await support.run({ task: 'read-metadata', blob, location, withHeaders, port: port2 }, [port2]);
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
