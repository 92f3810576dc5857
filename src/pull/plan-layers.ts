import type { Digest } from '../format/digest.js';
import { allocateTable, type LayerTable } from '../format/layer-table.js';
import { type CachedPart, type OpaqueBlob, totalsOf } from '../plan/opaque.js';
import { type PullPlan, planPull } from '../plan/plan.js';
import { type PlanLimits, planLimits } from '../plan/spans.js';
import type { LayerMetadata, MeasureBlobResult } from '../pool/messages.js';
import type { PackId } from '../store/paths.js';
import { ignoresRanges, measureBlobs } from './blob-locations.js';
import type { KnownLayer, MissingLayer } from './layer.js';
import type { PullContext } from './pull-context.js';
import { readLayers } from './read-layers.js';

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
export async function prepareLayers(
  context: PullContext,
  missing: readonly MissingLayer[],
): Promise<{ layers: readonly KnownLayer[]; plan: LayersPlan; figures: readonly PlannedFigures[] }> {
  const measured = await measureBlobs(
    context,
    missing.map(({ blob, otherUrls }) => ({ blob, urls: [blob.url, ...otherUrls] })),
  );
  const sized = missing.map((layer, i) => withSize(layer, measured[i]));
  const layers = (await readLayers(context, sized)).map((layer, i) => withCost(layer, measured[i]));
  const plan = await planLayers(context, layers);
  return { layers, plan, figures: layers.map((layer, i) => figuresOf(context, layer, plan, i)) };
}

/** The table of an opaque layer. */
const NO_CONTENTS: LayerTable = allocateTable({ count: 0, chunks: 0, dataEnd: 0, tarBytes: 0 });

/** Looks up what the store has of these layers, and plans what is left to fetch. */
async function planLayers(context: PullContext, layers: readonly KnownLayer[]): Promise<LayersPlan> {
  const opaqueBlobs = layers.filter((layer) => layer.metadata === undefined).map(({ blob }) => blob.digest);
  const tables = layers.map((layer) => layer.metadata?.table ?? NO_CONTENTS);
  const found = await context.stop.guard(
    context.support.run({
      task: 'look-up',
      tables,
      blobs: layers.map((layer) => layer.blob.digest),
      opaqueBlobs,
    }),
  );
  const limits = planLimits(context.settings.connections);
  const toPlan = tables.map((table, i) => ({ table, ...found.layers[i]! }));
  const opaque = layers.map((layer) => {
    if (layer.metadata !== undefined) return undefined;
    const rows = found.opaque[opaqueBlobs.indexOf(layer.blob.digest)]!;
    return { blobBytes: layer.blob.sizeBytes, cached: cachedParts(found.packs, rows) };
  });
  return { limits, chunked: planPull(toPlan, limits), packs: found.packs, opaque };
}

function withSize(layer: MissingLayer, measured: MeasureBlobResult | undefined): MissingLayer {
  if (measured === undefined) return layer;
  return { ...layer, blob: { ...layer.blob, sizeBytes: measured.sizeBytes } };
}

function withCost(layer: KnownLayer, measured: MeasureBlobResult | undefined): KnownLayer {
  if (measured === undefined) return layer;
  const fetchedBytes = layer.cost.fetchedBytes + measured.fetchedBytes;
  return { ...layer, cost: { fetchedBytes, requests: layer.cost.requests + measured.requests } };
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
