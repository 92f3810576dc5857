import { planLimits } from '../plan/limits.js';
import { type PullPlan, planPull } from '../plan/plan.js';
import { requireSpace } from '../store/disk-space.js';
import type { PackId } from '../store/paths.js';
import type { PullContext } from './context.js';
import type { ChunkedLayer, LayerFigures, WantedLayer } from './layer.js';
import { readLayers } from './read-layers.js';
import { type RunFigures, runPlan } from './run-plan.js';

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
  const layers = await readLayers(context, wanted);
  const held = await context.stop.guard(
    context.support.run({
      task: 'look-up',
      tables: layers.map((layer) => layer.table),
      blobs: layers.map((layer) => layer.blob.digest),
      rawBlobs: [],
    }),
  );
  const wants = layers.map((layer, i) => ({ table: layer.table, ...held.layers[i]! }));
  const plan = planPull(wants, planLimits(context.settings.connections));
  announce(context, layers, plan);
  await requireSpace(context.paths, plan.totals.decodedBytes + plan.totals.inlineBytes);
  const run = await runPlan(context, layers, plan, held.packs as readonly PackId[]);
  return {
    figures: layers.map((layer, i) => figuresOf(layer, plan, run, i)),
    provenAfterMs: run.provenAfterMs,
  };
}

/** Exact totals, before the first content byte. */
function announce(context: PullContext, layers: readonly ChunkedLayer[], plan: PullPlan): void {
  const metadataBytes = layers.reduce((sum, layer) => sum + layer.metadataFetchedBytes, 0);
  const metadataRequests = layers.reduce((sum, layer) => sum + layer.metadataRequests, 0);
  context.emit({
    event: 'planned',
    totalBytes: plan.totals.fetchBytes + metadataBytes,
    fetchBytes: plan.totals.fetchBytes,
    reuseBytes: plan.totals.reusedBytes,
    resumeBytes: plan.totals.resumedBytes,
    requests: plan.totals.requests + metadataRequests,
  });
}

function figuresOf(layer: ChunkedLayer, plan: PullPlan, run: RunFigures, i: number): LayerFigures {
  const { totals } = plan.layers[i]!;
  const fetched = run.layers[i]!;
  const { toc, tarSplit } = layer.positions;
  return {
    tarBytes: layer.table.tarBytes,
    metadataBytes: toc.end - toc.start + (tarSplit.end - tarSplit.start),
    fetchedBytes: layer.metadataFetchedBytes + fetched.fetchedBytes,
    reusedBytes: totals.reusedBytes,
    resumedBytes: totals.resumedBytes,
    requests: layer.metadataRequests + fetched.requests,
  };
}
