import { requireSpace, retryIfFullAsync } from '../files/disk-space.js';
import { inLayer, type PullError } from '../format/error.js';
import type { Compression } from '../format/layer-format.js';
import { type OpaqueBlob, totalsOf } from '../plan/opaque.js';
import { usableMemoryBytes } from '../pool/cores.js';
import { Semaphore } from '../pool/semaphore.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import type { ExtentList } from '../store/extents.js';
import { deleteBlob } from '../store/image-record.js';
import { writeLayerRecord } from '../store/layer-record.js';
import { fetchThreads, streamsAtATime } from './budgets.js';
import { ChunkedLayers } from './chunked-layers.js';
import { Fetcher, type Work } from './fetcher.js';
import {
  type FetchFigures,
  isChunked,
  type KnownLayer,
  type MissingLayer,
  sumOf,
  sumOfFetches,
  warnOfFallback,
} from './layer.js';
import { OpaqueLayer } from './opaque-layer.js';
import { type LayersPlan, lookUpBlobParts, prepareLayers } from './prepare-layers.js';
import type { PullContext } from './pull-context.js';
import type { LayerFigures } from './pull-result.js';
import { pieceBytes } from './span-fetch.js';

/**
 * Pulls the layers that the store does not have: reads their metadata, plans, fetches, verifies and
 * publishes them.
 * @throws PullError as fetching and verifying do; `store-full`
 */
export async function pullLayers(
  context: PullContext,
  missing: readonly MissingLayer[],
): Promise<LayerFigures[]> {
  const { layers, plan, figures } = await prepareLayers(context, missing);
  const planned = sumOf(figures, 'fetchBytes', 'reuseBytes', 'resumedBytes', 'requests', 'diskBytes');
  const { fetchBytes, diskBytes: storeBytes } = planned;
  const metadata = sumOfFetches(layers.map(({ cost }) => cost));
  for (const [i, { diffId, cost }] of layers.entries()) {
    const { fetchBytes, reuseBytes: reusedBytes, resumedBytes } = figures[i]!;
    const { fetchedBytes: receivedBytes } = cost;
    const totalBytes = receivedBytes + fetchBytes;
    context.layers.plan(diffId, { totalBytes, receivedBytes, reusedBytes, resumedBytes });
  }
  context.emit({
    event: 'planned',
    totalBytes: fetchBytes + metadata.fetchedBytes,
    fetchBytes,
    reuseBytes: planned.reuseBytes,
    resumeBytes: planned.resumedBytes,
    requests: planned.requests + metadata.requests,
  });
  await retryIfFullAsync(context.follower, () => requireSpace(context.paths.root, storeBytes, true));
  const tarBytes = figures.reduce((sum, figure) => sum + (figure.tarBytes ?? 0), 0);
  await context.follower?.expect?.({ storeBytes, tarBytes });
  const run = await runPlan(context, layers, plan, fetchBytes);
  return layers.map((layer, i) => {
    const { tarBytes, opaque, fetchedBytes, requests } = run[i]!;
    const { reuseBytes, resumedBytes, metadataBytes } = figures[i]!;
    return {
      format: opaque === undefined ? layer.format : opaque.compression,
      tarBytes,
      metadataBytes,
      fetchedBytes: layer.cost.fetchedBytes + fetchedBytes,
      // A chunked layer that fell back to an opaque one reused nothing of what the plan had
      // found.
      reusedBytes: opaque === undefined ? reuseBytes : 0,
      resumedBytes: opaque === undefined ? resumedBytes : opaque.resumedBytes,
      requests: layer.cost.requests + requests,
    };
  });
}

interface LayerOutcome {
  readonly tarBytes: number;
  /**
   * For a layer that was pulled as an opaque one: bytes of the blob from an earlier pull, and its
   * compression.
   */
  readonly opaque?: { readonly resumedBytes: number; readonly compression: Compression } | undefined;
}

/**
 * Executes a plan: spans, inline bytes, opaque blobs, verification and publication of all layers
 * together.
 */
export async function runPlan(
  context: PullContext,
  layers: readonly KnownLayer[],
  plan: LayersPlan,
  fetchBytes: number,
): Promise<ReadonlyArray<FetchFigures & LayerOutcome>> {
  const areOpaque = !layers.some(isChunked);
  const threads = fetchThreads(context.settings.workers, fetchBytes, areOpaque);
  // Where support threads decode opaque layers, they have enough to do.
  const mayShare = threads === 1 || layers.every(isChunked);
  const startPool = () => context.startFetchers(threads, mayShare);
  const fetcher = new Fetcher({ context, startPool, layers: layers.length });
  context.layers.follow(
    layers.map(({ diffId }) => diffId),
    fetcher,
  );
  const run = new Run(context, layers, plan, fetcher, pieceBytes(fetchBytes, context.settings.connections));
  await context.stop.guard(run.start());
  const { lastByteMs } = fetcher;
  context.stages.clock.addWait('prove', lastByteMs, Math.max(lastByteMs, run.provenMs), run.provenBytes);
  return layers.map((_, row) => ({ ...fetcher.figures[row]!, ...run.outcome(row) }));
}

/** The layers of one pull while they arrive. `row` is that of the layer. */
class Run {
  /** When the last DiffID was verified, by `performance.now()`. */
  provenMs = performance.now();
  /** Bytes of the tars that were verified. */
  provenBytes = 0;
  readonly #context: PullContext;
  readonly #layers: readonly KnownLayer[];
  readonly #fetcher: Fetcher;
  readonly #plan: LayersPlan;
  readonly #chunked: ChunkedLayers;
  /** Verification and publication of layers that are opaque, or chunked with all bytes on disk. */
  readonly #proofs: Array<Promise<void> | undefined>;
  readonly #opaque = new Map<number, NonNullable<LayerOutcome['opaque']>>();
  readonly #decoders: Semaphore;
  #cached: Promise<CachedContentRows> | undefined;
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
    this.#decoders = new Semaphore(streamsAtATime(context.settings.workers, usableMemoryBytes()));
    this.#proofs = layers.map(() => undefined);
    this.#chunked = new ChunkedLayers({
      context,
      layers,
      plan,
      fetcher,
      pieceBytes,
      onComplete: (row, verified) => this.#watch(row, this.#publishVerified(row, verified)),
      onFailed: (row, error) => this.#failed(row, error),
    });
  }

  /** Resolves when every layer is published. */
  async start(): Promise<void> {
    const published = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    void this.#chunked.writeInlines();
    for (const row of this.#opaqueRows())
      this.#pullOpaque(row, this.#plan.opaque[row]!, this.#layers[row]!.failedBefore);
    this.#chunked.fetch();
    await published;
  }

  outcome(row: number): LayerOutcome {
    return { tarBytes: this.#chunked.tarBytes(row), opaque: this.#opaque.get(row) };
  }

  /**
   * The opaque layers, largest first: one thread decodes each, and a large one that began last
   * would end long after the others.
   */
  #opaqueRows(): number[] {
    const rows = [...this.#layers.keys()].filter((row) => !this.#chunked.has(row));
    const sizeOf = (row: number) => this.#layers[row]!.blob.sizeBytes;
    return rows.sort((a, b) => sizeOf(b) - sizeOf(a));
  }

  /** Fails the layer if its verification or publication fails, unless it was dropped meanwhile. */
  #watch(row: number, proof: Promise<void>): void {
    this.#proofs[row] = proof;
    proof.catch((error: unknown) => {
      if (this.#proofs[row] === proof) this.#failed(row, error);
    });
  }

  async #publishVerified(row: number, verified: Promise<ExtentList | undefined>): Promise<void> {
    const extents = await verified;
    if (extents !== undefined) await this.#publish(this.#layers[row]!, extents);
  }

  #pullOpaque(row: number, blob: OpaqueBlob, failedBefore?: PullError): void {
    const layer = this.#layers[row]!;
    const options = {
      context: this.#context,
      fetcher: this.#fetcher,
      layer,
      row,
      decoders: this.#decoders,
      cached: this.#listCached,
    };
    const opaque = new OpaqueLayer(options, this.#plan.limits, blob, failedBefore);
    const pull = async () => {
      const { extents, ...result } = await opaque.pull();
      this.#opaque.set(row, result);
      this.#chunked.addOpaque(row, extents);
      await this.#publish(layer, extents);
      this.#chunked.advance();
    };
    this.#watch(row, pull());
  }

  /** Listed once for all opaque layers, while the first of them arrives. */
  readonly #listCached = (): Promise<CachedContentRows> => {
    this.#cached ??= this.#context.support.run({ task: 'list-cached' });
    return this.#cached;
  };

  async #publish(layer: KnownLayer, extents: ExtentList): Promise<void> {
    this.provenMs = Math.max(this.provenMs, performance.now());
    this.provenBytes += extents.lengthBytes;
    await publishLayer(this.#context, layer, extents);
    this.#published += 1;
    const of = this.#layers.length;
    this.#context.emit({ event: 'layer', diffId: layer.diffId, done: this.#published, of });
    if (this.#published === of) this.#resolve();
  }

  /**
   * Pulls a chunked layer whose metadata is wrong as an opaque one, once. Any other failure ends
   * the pull.
   */
  #failed(row: number, error: unknown): void {
    const layer = this.#layers[row]!;
    if (this.#chunked.has(row) && warnOfFallback(this.#context, layer, error)) {
      const work = this.#chunked.drop(row);
      this.#proofs[row] = undefined;
      void this.#fallBack(row, work, inLayer(error, layer.blob.digest));
      return;
    }
    void this.#end(row, error);
  }

  async #fallBack(row: number, work: Work, failedBefore: PullError): Promise<void> {
    const { blob: source, diffId } = this.#layers[row]!;
    const { digest, sizeBytes: blobBytes } = source;
    try {
      // A server that ignores ranges may be sending the full blob already.
      if (failedBefore.code === 'unsupported') await this.#fetcher.ended(work);
      const blob = { blobBytes, cached: await lookUpBlobParts(this.#context, digest) };
      const { totals } = this.#plan.chunked.layers[row]!;
      const notFetchedBytes = totals.fetchBytes - this.#fetcher.figures[row]!.fetchedBytes;
      this.#context.addTotal(totalsOf(blob, this.#plan.limits).fetchBytes - notFetchedBytes, diffId);
      this.#pullOpaque(row, blob, failedBefore);
    } catch (error) {
      void this.#end(row, error);
    }
  }

  /** Ends the pull, but lets chunked layers that are on disk be verified first. */
  async #end(row: number, error: unknown): Promise<void> {
    const failure = inLayer(error, this.#layers[row]!.blob.digest);
    if (failure.code === 'digest-mismatch' || failure.code === 'metadata-malformed') {
      for (const pack of this.#chunked.packsOf(row)) this.#context.failed.add(pack);
      await Promise.allSettled(this.#proofs.filter((_, other) => this.#chunked.has(other)));
    }
    this.#context.stop.now(failure);
  }
}

/** Publishes a verified layer, and deletes its metadata, which only an unverified one needs. */
async function publishLayer(context: PullContext, layer: KnownLayer, extents: ExtentList): Promise<void> {
  const record = { diffId: layer.diffId, extents };
  await context.stages.clock.during('sync', 'wait', () =>
    retryIfFullAsync(context.follower, () => writeLayerRecord(context.paths, record)),
  );
  for (const part of [layer.metadata?.toc, layer.metadata?.tarSplit]) {
    if (part !== undefined) await deleteBlob(context.paths, part.digest);
  }
}
