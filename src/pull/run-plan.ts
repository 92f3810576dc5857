import { inLayer, type PullError } from '../format/error.js';
import type { PullPlan, Span } from '../plan/plan.js';
import type { PackId } from '../store/paths.js';
import { LayerAssembly } from './assembly.js';
import type { PullContext } from './context.js';
import { Fetcher, type FetchFigures, type SpanJob } from './fetcher.js';
import { writeInline } from './inline.js';
import type { ChunkedLayer } from './layer.js';
import { LayerProver } from './prover.js';
import { publishLayer } from './publish.js';
import { repairLayer } from './repair.js';

/** A pull that fetches less than this uses one worker: one small pack instead of several tiny ones. */
const ONE_WORKER_BYTES = 8 * 2 ** 20;

/**
 * Compressed bytes that a piece has before it is decoded. A killed process loses what its connections had received
 * and not yet decoded, about one and a half pieces each; all together that is to stay below this share of the fetch.
 * 256 KiB and what they decode to stay in a core's cache: 512 KiB took 7 % more CPU time and 20 MB more memory.
 */
const LOST_SHARE = 0.03;
const LOST_PIECES = 1.5;
const LEAST_PIECE_BYTES = 32 * 1024;
const MOST_PIECE_BYTES = 256 * 1024;

export interface RunFigures {
  readonly layers: readonly FetchFigures[];
  /** From the last content byte until every DiffID was proven, in milliseconds. */
  readonly provenAfterMs: number;
}

/** Carries a plan out: spans, inline bytes, proof and publication, all layers together. */
export async function runPlan(
  context: PullContext,
  layers: readonly ChunkedLayer[],
  plan: PullPlan,
  packs: readonly PackId[],
): Promise<RunFigures> {
  const fetcher = new Fetcher({
    context,
    layers,
    pieceBytes: pieceBytes(plan.totals.fetchBytes, context.settings.connections),
    startPool: () =>
      context.startFetchers(plan.totals.fetchBytes < ONE_WORKER_BYTES ? 1 : context.settings.workers),
  });
  const run = new Run(context, layers, plan, packs, fetcher);
  await context.stop.guard(run.start());
  return { layers: fetcher.figures, provenAfterMs: Math.max(0, run.provenMs - fetcher.lastByteMs) };
}

function pieceBytes(fetchBytes: number, connections: number): number {
  const share = (fetchBytes * LOST_SHARE) / (connections * LOST_PIECES);
  return Math.round(Math.min(MOST_PIECE_BYTES, Math.max(LEAST_PIECE_BYTES, share)));
}

/** The layers of one pull while they fill up. */
class Run {
  /** When the last DiffID was proven, by `performance.now()`. */
  provenMs = performance.now();
  readonly #context: PullContext;
  readonly #layers: readonly ChunkedLayer[];
  readonly #fetcher: Fetcher;
  readonly #plan: PullPlan;
  readonly #assemblies: readonly LayerAssembly[];
  readonly #provers: readonly LayerProver[];
  /** Of each layer whose bytes are all on disk. */
  readonly #proofs: Array<Promise<void> | undefined>;
  #published = 0;
  #resolve: () => void = () => {};

  constructor(
    context: PullContext,
    layers: readonly ChunkedLayer[],
    plan: PullPlan,
    packs: readonly PackId[],
    fetcher: Fetcher,
  ) {
    this.#context = context;
    this.#layers = layers;
    this.#plan = plan;
    this.#fetcher = fetcher;
    this.#assemblies = plan.layers.map(({ segments }) => new LayerAssembly(segments, packs));
    this.#provers = layers.map(({ diffId }) => new LayerProver(context, diffId));
    this.#proofs = layers.map(() => undefined);
  }

  /** Resolves when every layer is published. */
  async start(): Promise<void> {
    const published = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    void this.#writeInlines();
    this.#fetcher.add(this.#plan.spans.map((span, row) => this.#job(span, row)));
    this.#advance();
    await published;
  }

  #job(span: Span, row: number): SpanJob {
    return {
      ...span,
      onPart: (part) => {
        this.#assemblies[span.layer]!.placeSpanPart(row, part);
        this.#advance();
      },
    };
  }

  /** One layer after the other: each has its whole tar-split in memory meanwhile, 48 MB for 40,000 files. */
  async #writeInlines(): Promise<void> {
    for (const layer of this.#layers.keys()) await this.#writeInline(layer);
  }

  async #writeInline(layer: number): Promise<void> {
    const assembly = this.#assemblies[layer]!;
    const ranges = assembly.inlineRanges();
    if (ranges.length === 0) return;
    try {
      assembly.placeInline(await writeInline(this.#context, this.#layers[layer]!, ranges));
      this.#advance();
    } catch (error) {
      this.#context.stop.now(inLayer(error, this.#layers[layer]!.blob.digest));
    }
  }

  /** Moves every front as far as it goes, in order: a layer copies from earlier places only. */
  #advance(): void {
    for (const [layer, assembly] of this.#assemblies.entries()) {
      if (this.#proofs[layer] !== undefined) continue;
      this.#provers[layer]!.feed(assembly.advance(this.#assemblies));
      if (!assembly.complete) continue;
      const proof = this.#prove(layer);
      this.#proofs[layer] = proof;
      proof.catch((error: unknown) => this.#fail(inLayer(error, this.#layers[layer]!.blob.digest)));
    }
  }

  /** Proves a layer whose bytes are all on disk, and publishes it. */
  async #prove(index: number): Promise<void> {
    const layer = this.#layers[index]!;
    let { extents } = this.#assemblies[index]!;
    const actual = await this.#provers[index]!.end(extents);
    if (actual !== layer.diffId) {
      const repair = { context: this.#context, layer, index, extents, actual, fetcher: this.#fetcher };
      extents = await repairLayer(repair);
    }
    this.provenMs = Math.max(this.provenMs, performance.now());
    await publishLayer(this.#context, layer, extents);
    this.#published += 1;
    const of = this.#layers.length;
    this.#context.emit({ event: 'layer', diffId: layer.diffId, done: this.#published, of });
    if (this.#published === of) this.#resolve();
  }

  /** One layer is wrong: the pull ends, but not before others that are on disk had the time to be proven. */
  async #fail(error: PullError): Promise<void> {
    await Promise.allSettled(this.#proofs);
    this.#context.stop.now(error);
  }
}
