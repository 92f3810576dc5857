import type { Digest } from '../format/digest.js';
import { allocateTable, type LayerTable } from '../format/layer-table.js';
import type { CachedPart, OpaqueBlob } from '../plan/opaque.js';
import { type PullPlan, planPull } from '../plan/plan.js';
import { type PlanLimits, planLimits } from '../plan/spans.js';
import type { PackId } from '../store/paths.js';
import type { KnownLayer } from './layer.js';
import type { PullContext } from './pull-context.js';

/** Where every byte of the wanted layers will come from. */
export interface LayersPlan {
  readonly limits: PlanLimits;
  /** Of the chunked layers; a layer that is one stream has nothing in it. */
  readonly chunked: PullPlan;
  /** The table that held segments of `chunked` point into. */
  readonly packs: readonly PackId[];
  /** Each layer that is one stream. */
  readonly whole: ReadonlyArray<OpaqueBlob | undefined>;
}

/** Stands for the table of a layer that has none. */
const NO_CONTENTS: LayerTable = allocateTable({ count: 0, chunks: 0, dataEnd: 0, tarBytes: 0 });

/** Asks the store what it has of these layers, and plans what is left to be fetched. */
export async function planLayers(context: PullContext, layers: readonly KnownLayer[]): Promise<LayersPlan> {
  const streams = layers.filter((layer) => layer.metadata === undefined).map(({ blob }) => blob.digest);
  const tables = layers.map((layer) => layer.metadata?.table ?? NO_CONTENTS);
  const held = await context.stop.guard(
    context.support.run({
      task: 'look-up',
      tables,
      blobs: layers.map((layer) => layer.blob.digest),
      opaqueBlobs: streams,
    }),
  );
  const limits = planLimits(context.settings.connections);
  const wants = tables.map((table, i) => ({ table, ...held.layers[i]! }));
  const whole = layers.map((layer) => {
    if (layer.metadata !== undefined) return undefined;
    const runs = blobRuns(held.packs, held.raw[streams.indexOf(layer.blob.digest)]!);
    return { blobBytes: layer.blob.sizeBytes, cached: runs };
  });
  return { limits, chunked: planPull(wants, limits), packs: held.packs as readonly PackId[], whole };
}

/** What an earlier pull left of one blob as it is. */
export async function lookUpBlobRuns(context: PullContext, blob: Digest): Promise<CachedPart[]> {
  const answer = await context.stop.guard(
    context.support.run({ task: 'look-up', tables: [], blobs: [], opaqueBlobs: [blob] }),
  );
  return blobRuns(answer.packs, answer.raw[0]!);
}

function blobRuns(
  packs: readonly string[],
  rows: ReadonlyArray<Omit<CachedPart, 'pack'> & { readonly pack: number }>,
): CachedPart[] {
  return rows.map((row) => ({ ...row, pack: packs[row.pack]! }));
}
