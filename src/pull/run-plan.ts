import { withRoomFrom } from '../files/disk-space.js';
import { inLayer, type PullError } from '../format/error.js';
import type { Compression } from '../format/layer-format.js';
import { type OpaqueBlob, totalsOf } from '../plan/opaque.js';
import type { Span } from '../plan/plan.js';
import { usableMemoryBytes } from '../pool/cores.js';
import type { CachedRows } from '../pool/messages.js';
import { deleteBlob } from '../store/blob-cache.js';
import type { ExtentList } from '../store/extents.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PackId } from '../store/paths.js';
import { LayerAssembly, writeInline } from './assembly.js';
import { Semaphore } from './budgets.js';
import { Fetcher, type Work } from './fetcher.js';
import { type ChunkedLayer, type FetchFigures, isChunked, type KnownLayer, warnOfFallback } from './layer.js';
import { OpaqueLayer } from './opaque-layer.js';
import { type LayersPlan, lookUpBlobRuns } from './plan-layers.js';
import { LayerProver } from './prover.js';
import type { PullContext } from './pull-context.js';
import { repairLayer } from './repair.js';
import { SpanFetch } from './span-fetch.js';
import { fetchThreads, streamsAtATime } from './thread-counts.js';

/**
 * Compressed bytes that a piece has before it is decoded. A killed process loses what its connections had received
 * and not yet decoded, about one and a half pieces each; all together that is to stay below this share of the fetch.
 * 256 KiB and what they decode to stay in a core's cache: 512 KiB took 7 % more CPU time and 20 MB more memory.
 */
const LOST_SHARE = 0.03;
const LOST_PIECES = 1.5;
const LEAST_PIECE_BYTES = 32 * 1024;
const MOST_PIECE_BYTES = 256 * 1024;

/** What became of a layer. */
interface LayerOutcome {
  readonly tarBytes: number;
  /** For a layer that was pulled as one stream: bytes of the blob that an earlier pull had left, and its compression. */
  readonly whole?: { readonly resumedBytes: number; readonly compression: Compression };
}

export interface RunFigures {
  readonly layers: ReadonlyArray<FetchFigures & LayerOutcome>;
  /** From the last content byte until every DiffID was proven, in milliseconds. */
  readonly provenAfterMs: number;
}

/** Carries a plan out: spans, inline bytes, whole blobs, proof and publication, all layers together. */
export async function runPlan(
  context: PullContext,
  layers: readonly KnownLayer[],
  plan: LayersPlan,
  fetchBytes: number,
): Promise<RunFigures> {
  const areStreams = !layers.some(isChunked);
  const threads = fetchThreads(context.settings.workers, fetchBytes, areStreams);
  // Support threads have enough to do where they decode streams.
  const mayShare = threads === 1 || layers.every(isChunked);
  const startPool = () => context.startFetchers(threads, mayShare);
  const fetcher = new Fetcher({ context, startPool, layers: layers.length });
  const run = new Run(context, layers, plan, fetcher, pieceBytes(fetchBytes, context.settings.connections));
  await context.stop.guard(run.start());
  return {
    layers: layers.map((_, i) => ({ ...fetcher.figures[i]!, ...run.outcome(i) })),
    provenAfterMs: Math.max(0, run.provenMs - fetcher.lastByteMs),
  };
}

function pieceBytes(fetchBytes: number, connections: number): number {
  const share = (fetchBytes * LOST_SHARE) / (connections * LOST_PIECES);
  return Math.round(Math.min(MOST_PIECE_BYTES, Math.max(LEAST_PIECE_BYTES, share)));
}

/** One chunked layer while it fills up. */
interface Filling {
  readonly layer: ChunkedLayer;
  readonly work: Work;
  readonly spans: SpanFetch;
  readonly prover: LayerProver;
}

/** The layers of one pull on their way. */
class Run {
  /** When the last DiffID was proven, by `performance.now()`. */
  provenMs = performance.now();
  readonly #context: PullContext;
  readonly #layers: readonly KnownLayer[];
  readonly #fetcher: Fetcher;
  readonly #plan: LayersPlan;
  readonly #assemblies: readonly LayerAssembly[];
  /** Of each layer that is pulled by its table of contents, and not given up as such. */
  readonly #fillings: Array<Filling | undefined>;
  /** Of each layer whose bytes are all on disk, or that is one stream. */
  readonly #proofs: Array<Promise<void> | undefined>;
  /** Of each layer that is there and was pulled as one stream. */
  readonly #wholes = new Map<number, NonNullable<LayerOutcome['whole']>>();
  /** Rows of the layers that have something in a pack of this pull. */
  readonly #writers = new Map<PackId, Set<number>>();
  readonly #turns: Semaphore;
  #held: Promise<CachedRows> | undefined;
  #published = 0;
  #resolve: () => void = () => {};

  constructor(
    context: PullContext,
    layers: readonly KnownLayer[],
    plan: LayersPlan,
    fetcher: Fetcher,
    pieceBytes: number,
  ) {
    this.#context = context;
    this.#layers = layers;
    this.#plan = plan;
    this.#fetcher = fetcher;
    this.#turns = new Semaphore(streamsAtATime(context.settings.workers, usableMemoryBytes()));
    this.#assemblies = layers.map((layer, i) => {
      const tail = layer.metadata?.tail;
      const extent = tail && {
        pack: tail.pack as PackId,
        offset: tail.packOffset,
        lengthBytes: tail.lengthBytes,
      };
      if (extent !== undefined) this.#noteWriter(extent.pack, i);
      return new LayerAssembly(plan.chunked.layers[i]!.segments, plan.packs, extent);
    });
    this.#proofs = layers.map(() => undefined);
    this.#fillings = layers.map((layer, i) => {
      if (!isChunked(layer)) return undefined;
      const work = { layer: i, dropped: false };
      const failed = (error: unknown) => this.#failed(i, error);
      const wrote = (pack: PackId) => this.#noteWriter(pack, i);
      const spans = new SpanFetch({ context, fetcher, layer, work, pieceBytes, failed, wrote });
      return { layer, work, spans, prover: new LayerProver(context, layer) };
    });
  }

  /** Resolves when every layer is published. */
  async start(): Promise<void> {
    const published = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    void this.#writeInlines();
    for (const i of this.#streams()) this.#pullOpaque(i, this.#plan.whole[i]!, this.#layers[i]!.failedBefore);
    for (const [i, filling] of this.#fillings.entries()) {
      if (filling === undefined) continue;
      this.#fetcher.add(this.#spansOf(i).map(({ span, row }) => this.#job(filling, span, row)));
    }
    this.#advance();
    await published;
  }

  /**
   * The layers that are one stream, largest first, as none is decoded by more than one thread: a large one that began last would
   * end long after the others.
   */
  #streams(): number[] {
    const rows = [...this.#layers.keys()].filter((i) => this.#fillings[i] === undefined);
    const sizeOf = (i: number) => this.#layers[i]!.blob.sizeBytes;
    return rows.sort((a, b) => sizeOf(b) - sizeOf(a));
  }

  #noteWriter(pack: PackId, layer: number): void {
    const layers = this.#writers.get(pack) ?? new Set();
    this.#writers.set(pack, layers.add(layer));
  }

  outcome(i: number): LayerOutcome {
    const { lengthBytes: tarBytes } = this.#assemblies[i]!.extents;
    const whole = this.#wholes.get(i);
    return whole === undefined ? { tarBytes } : { tarBytes, whole };
  }

  #spansOf(layer: number): { span: Span; row: number }[] {
    const { spans, layers } = this.#plan.chunked;
    const { firstSpan, endSpan } = layers[layer]!;
    return spans.slice(firstSpan, endSpan).map((span, i) => ({ span, row: firstSpan + i }));
  }

  #job(filling: Filling, span: Span, row: number) {
    return filling.spans.job({
      ...span,
      onPart: (part, last) => {
        this.#assemblies[span.layer]!.placeSpanPart(row, part, last);
        this.#advance();
      },
    });
  }

  /** One layer after the other: each has its whole tar-split in memory meanwhile, 48 MB for 40,000 files. */
  async #writeInlines(): Promise<void> {
    for (const layer of this.#layers.keys()) await this.#writeInline(layer);
  }

  async #writeInline(i: number): Promise<void> {
    const filling = this.#fillings[i];
    const tarSplit = filling?.layer.metadata.tarSplit;
    const ranges = this.#assemblies[i]!.inlineRanges();
    if (filling === undefined || tarSplit === undefined || ranges.length === 0) return;
    try {
      const run = await writeInline(this.#context, filling.layer, tarSplit, ranges);
      this.#noteWriter(run.pack, i);
      if (filling.work.dropped) return;
      this.#assemblies[i]!.placeInline(run);
      this.#advance();
    } catch (error) {
      if (!filling.work.dropped) this.#failed(i, error);
    }
  }

  /** Moves every front as far as it goes, in order: a layer copies from earlier places only. */
  #advance(): void {
    for (const [i, filling] of this.#fillings.entries()) {
      if (filling === undefined || this.#proofs[i] !== undefined) continue;
      const assembly = this.#assemblies[i]!;
      try {
        filling.prover.feed(assembly.advance(this.#assemblies));
      } catch (error) {
        this.#failed(i, error);
        continue;
      }
      if (assembly.complete) this.#proving(i, this.#prove(filling, assembly));
    }
  }

  /** A layer is being proven and published; the pull ends when that fails. */
  #proving(i: number, proof: Promise<void>): void {
    this.#proofs[i] = proof;
    proof.catch((error: unknown) => {
      if (this.#proofs[i] === proof) this.#failed(i, error);
    });
  }

  /** Proves a chunked layer whose bytes are all on disk, and publishes it. */
  async #prove({ layer, spans, prover, work }: Filling, assembly: LayerAssembly): Promise<void> {
    let { extents } = assembly;
    const actual = await prover.end(extents);
    if (actual !== layer.diffId) {
      extents = await repairLayer({
        context: this.#context,
        fetcher: this.#fetcher,
        layer,
        extents,
        actual,
        spans,
      });
      if (!work.dropped) assembly.replace(extents);
    }
    if (!work.dropped) await this.#publish(layer, extents);
  }

  /** Pulls a layer as one stream, and publishes it. */
  #pullOpaque(i: number, blob: OpaqueBlob, failedBefore?: PullError): void {
    const { limits } = this.#plan;
    const layer = this.#layers[i]!;
    const options = {
      context: this.#context,
      fetcher: this.#fetcher,
      layer,
      index: i,
      turns: this.#turns,
      held: this.#listCached,
    };
    const whole = new OpaqueLayer(options, limits, blob, failedBefore);
    const pull = async () => {
      const { extents, ...result } = await whole.pull();
      this.#wholes.set(i, result);
      this.#assemblies[i]!.replace(extents);
      await this.#publish(layer, extents);
      this.#advance();
    };
    this.#proving(i, pull());
  }

  /** Listed once for all streams, while the first of them comes. */
  readonly #listCached = (): Promise<CachedRows> => {
    this.#held ??= this.#context.support.run({ task: 'list-cached' });
    return this.#held;
  };

  async #publish(layer: KnownLayer, extents: ExtentList): Promise<void> {
    this.provenMs = Math.max(this.provenMs, performance.now());
    await publishLayer(this.#context, layer, extents);
    this.#published += 1;
    const of = this.#layers.length;
    this.#context.emit({ event: 'layer', diffId: layer.diffId, done: this.#published, of });
    if (this.#published === of) this.#resolve();
  }

  /** A chunked layer that failed by its metadata is pulled as one stream, once; everything else ends the pull. */
  #failed(i: number, error: unknown): void {
    const filling = this.#fillings[i];
    const layer = this.#layers[i]!;
    if (filling !== undefined && warnOfFallback(this.#context, layer, error)) {
      filling.work.dropped = true;
      this.#fillings[i] = undefined;
      filling.prover.abandon();
      this.#proofs[i] = undefined;
      void this.#startAgain(i, filling, inLayer(error, layer.blob.digest));
      return;
    }
    void this.#end(i, error);
  }

  /** A server that gives no ranges may be sending the whole blob already. */
  async #startAgain(i: number, { layer, work }: Filling, failedBefore: PullError): Promise<void> {
    try {
      if (failedBefore.code === 'unsupported') await this.#fetcher.ended(work);
      const cached = await lookUpBlobRuns(this.#context, layer.blob.digest);
      const blob = { blobBytes: layer.blob.sizeBytes, cached };
      const { totals } = this.#plan.chunked.layers[i]!;
      const notFetchedBytes = totals.fetchBytes - this.#fetcher.figures[i]!.fetchedBytes;
      this.#context.addTotal(totalsOf(blob, this.#plan.limits).fetchBytes - notFetchedBytes);
      this.#pullOpaque(i, blob, failedBefore);
    } catch (error) {
      void this.#end(i, error);
    }
  }

  /** One layer failed: the pull ends, but not before others that are on disk had the time to be proven. */
  async #end(i: number, error: unknown): Promise<void> {
    const { digest } = this.#layers[i]!.blob;
    const failure = inLayer(error, digest);
    if (failure.code === 'digest-mismatch' || failure.code === 'metadata-malformed') {
      for (const [pack, layers] of this.#writers) {
        if (layers.size === 1 && layers.has(i)) this.#context.failed.add(pack);
      }
      await Promise.allSettled(this.#proofs.filter((_, other) => this.#fillings[other] !== undefined));
    }
    this.#context.stop.now(failure);
  }
}

/** Publishes a proven layer and drops its metadata, which only an unproven one needs. */
async function publishLayer(context: PullContext, layer: KnownLayer, extents: ExtentList): Promise<void> {
  const record = { diffId: layer.diffId, extents };
  await withRoomFrom(context.follower, () => writeLayerRecord(context.paths, record));
  for (const part of [layer.metadata?.toc, layer.metadata?.tarSplit]) {
    if (part !== undefined) await deleteBlob(context.paths, part.digest);
  }
}
