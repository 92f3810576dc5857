import { requireSpace, withRoomFrom } from '../files/disk-space.js';
import { totalsOf } from '../plan/opaque.js';
import type { LayerMetadata, MeasureBlobResult } from '../pool/messages.js';
import { ignoresRanges, measureBlobs } from './blob-locations.js';
import type { KnownLayer, LayerFigures, WantedLayer } from './layer.js';
import { type LayersPlan, planLayers } from './plan-layers.js';
import type { PullContext } from './pull-context.js';
import { readLayers } from './read-layers.js';
import { runPlan } from './run-plan.js';

/** What pulling the missing layers gave, layer by layer. */
export interface PulledLayers {
  readonly figures: readonly LayerFigures[];
  /** From the last content byte until every DiffID was proven, in milliseconds. */
  readonly provenAfterMs: number;
}

/** Pulls the layers that the store does not have: metadata, plan, spans, proof, records. */
export async function pullLayers(
  context: PullContext,
  wanted: readonly WantedLayer[],
): Promise<PulledLayers> {
  const { layers, plan, figures } = await prepareLayers(context, wanted);
  const fetchBytes = sum(figures, ({ fetchBytes }) => fetchBytes);
  announce(context, layers, figures);
  const storeBytes = sum(figures, ({ diskBytes }) => diskBytes);
  await withRoomFrom(context.follower, () => requireSpace(context.paths.root, storeBytes, true));
  await context.follower?.expect?.({ storeBytes, tarBytes: sum(figures, ({ tarBytes }) => tarBytes ?? 0) });
  const run = await runPlan(context, layers, plan, fetchBytes);
  return {
    figures: layers.map((layer, i) => {
      const { tarBytes, whole, fetchedBytes, requests } = run.layers[i]!;
      const { reuseBytes, resumedBytes, metadataBytes } = figures[i]!;
      return {
        format: whole === undefined ? layer.format : whole.compression,
        tarBytes,
        metadataBytes,
        fetchedBytes: layer.cost.fetchedBytes + fetchedBytes,
        // A layer that had to be pulled as a whole after all made no use of what had been found.
        reusedBytes: whole === undefined ? reuseBytes : 0,
        resumedBytes: whole === undefined ? resumedBytes : whole.resumedBytes,
        requests: layer.cost.requests + requests,
      };
    }),
    provenAfterMs: run.provenAfterMs,
  };
}

/** What the plan says of one layer; bytes that will be fetched and requests do not have those for metadata. */
export interface PlannedFigures {
  /** Null where nobody can know before it is decoded. */
  readonly tarBytes: number | null;
  readonly metadataBytes: number;
  readonly fetchBytes: number;
  readonly reuseBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
  /** What has to be written for it, about. */
  readonly diskBytes: number;
}

/** Everything up to the first content byte. */
export async function prepareLayers(
  context: PullContext,
  wanted: readonly WantedLayer[],
): Promise<{ layers: readonly KnownLayer[]; plan: LayersPlan; figures: readonly PlannedFigures[] }> {
  const measured = await measureBlobs(
    context,
    wanted.map(({ blob, otherUrls }) => ({ blob, urls: [blob.url, ...otherUrls] })),
  );
  const sized = wanted.map((layer, i) => withSize(layer, measured[i]));
  const layers = (await readLayers(context, sized)).map((layer, i) => withCost(layer, measured[i]));
  const plan = await planLayers(context, layers);
  return { layers, plan, figures: layers.map((layer, i) => figuresOf(context, layer, plan, i)) };
}

function withSize(layer: WantedLayer, measured: MeasureBlobResult | undefined): WantedLayer {
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
  const whole = plan.whole[i];
  if (whole !== undefined) {
    const inRanges = totalsOf(whole, plan.limits);
    const isOneRequest = inRanges.fetchBytes > 0 && ignoresRanges(context, blob);
    const totals = isOneRequest ? { fetchBytes: blob.sizeBytes, resumedBytes: 0, requests: 1 } : inRanges;
    // Its bytes as they are, and a tar that is hardly ever shorter.
    const diskBytes = totals.fetchBytes + blob.sizeBytes;
    return { ...totals, tarBytes: null, metadataBytes: 0, reuseBytes: 0, diskBytes };
  }
  const { totals } = plan.chunked.layers[i]!;
  const { table, metadataBytes } = metadata!;
  const here = hereAlready(metadata!, plan, i);
  return {
    tarBytes: table.layout === 'tar-split' ? table.tarBytes : null,
    metadataBytes,
    fetchBytes: totals.fetchBytes - here.bytes,
    reuseBytes: totals.reusedBytes,
    resumedBytes: totals.resumedBytes,
    requests: totals.requests - here.requests,
    diskBytes: totals.decodedBytes + totals.inlineBytes,
  };
}

/** What the spans of a layer need not ask for, as it came with the metadata, and how many ask for nothing. */
function hereAlready({ lastBytes }: LayerMetadata, plan: LayersPlan, i: number) {
  const { firstSpan, endSpan } = plan.chunked.layers[i]!;
  const here = { bytes: 0, requests: 0 };
  if (lastBytes === undefined) return here;
  for (const { blobStart, blobEnd } of plan.chunked.spans.slice(firstSpan, endSpan)) {
    here.bytes += Math.max(0, blobEnd - Math.max(blobStart, lastBytes.blobStart));
    if (blobStart >= lastBytes.blobStart) here.requests += 1;
  }
  return here;
}

/** Exact totals, before the first content byte. */
function announce(
  context: PullContext,
  layers: readonly KnownLayer[],
  figures: readonly PlannedFigures[],
): void {
  const fetchBytes = sum(figures, (figure) => figure.fetchBytes);
  context.emit({
    event: 'planned',
    totalBytes: fetchBytes + sum(layers, ({ cost }) => cost.fetchedBytes),
    fetchBytes,
    reuseBytes: sum(figures, ({ reuseBytes }) => reuseBytes),
    resumeBytes: sum(figures, ({ resumedBytes }) => resumedBytes),
    requests: sum(figures, ({ requests }) => requests) + sum(layers, ({ cost }) => cost.requests),
  });
}

function sum<T>(items: readonly T[], figure: (item: T) => number): number {
  return items.reduce((total, item) => total + figure(item), 0);
}
