import type { BlobRange } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { cutBlob, planOpaque } from '../plan/opaque.js';
import { type PlanLimits, planLimits } from '../plan/spans.js';
import { CounterReader, resetRateLimit } from '../pool/shared-memory.js';
import type { Stages } from '../pool/stages.js';
import { fromAnyUrl, ignoresRanges, measureBlobs } from '../pull/blob-locations.js';
import { fetchThreads } from '../pull/budgets.js';
import { Fetcher } from '../pull/fetcher.js';
import {
  imageLayers,
  isLikelyOpaque,
  likelyStreamBytes,
  type MissingLayer,
  missingLayers,
  sumOfFetches,
} from '../pull/layer.js';
import type { PullContext } from '../pull/pull-context.js';
import type { PullOptions } from '../pull/pull-options.js';
import type { PullSession } from '../pull/pull-session.js';
import { type ResolvedImage, resolveSession } from '../pull/resolve-image.js';
import { withSession } from '../pull/with-session.js';
import { Workers } from '../pull/workers.js';
import { openStoreToRead, type StorePaths } from '../store/paths.js';
import { RangesFetch } from './ranges-fetch.js';

/** How often the received bytes are noted. */
const TICK_MS = 100;

/** The options of a pull. The store is only read: manifest and config are not fetched again. */
export type NetworkOptions = Omit<PullOptions, 'policy'>;

export interface NetworkMeasurement {
  readonly image: string;
  readonly digest: string;
  /** Body bytes of the layers' blobs that were received. */
  readonly bytes: number;
  /** GETs of blobs, retries included. */
  readonly requests: number;
  readonly misses: number;
  /** The time of fetching, as in `stages.fetch`: without start-up, manifests and config. */
  readonly durationMs: number;
  readonly stages: Stages;
  /** All bytes received until then, ten times a second: `[milliseconds, bytes]`. */
  readonly timeline: ReadonlyArray<readonly [number, number]>;
}

/**
 * Measures the network alone: fetches the blobs of all layers of an image as a pull into an empty
 * store would, over the same connections by ranges of the same sizes in the same order, and drops
 * the bytes as they arrive. Digests are not verified. Writes nothing.
 * @throws PullError as `pullImage` for manifests, configs and the network
 */
export function measureNetwork(reference: string, options: NetworkOptions): Promise<NetworkMeasurement> {
  return withSession(reference, options, 'the measurement was interrupted', (session) => new Run(session));
}

/** One measurement. */
class Run {
  readonly #session: PullSession;
  readonly #warn: (message: string) => void;
  #workers: Promise<Workers> | undefined;

  constructor(session: PullSession) {
    this.#session = session;
    this.#warn = (message) => session.progress.emit({ event: 'warning', message });
  }

  async run(): Promise<NetworkMeasurement> {
    const paths = openStoreToRead(this.#session.settings.store, this.#warn);
    const image = await resolveSession(this.#session, paths, this.#warn);
    const layers = await this.#layers(image, paths);
    this.#workers = Workers.start({
      session: this.#session,
      paths,
      layers: layers.length,
      streamBytes: likelyStreamBytes(layers),
      emit: this.#session.progress.emit,
      reusesBuffers: true,
    });
    const { context } = await this.#workers;
    const sized = await context.stages.clock.within('metadata', () => withSizes(context, layers));
    const { timeline, ...fetched } = await this.#fetch(context, sized);
    const stages = this.#session.stages.result();
    const durationMs = Math.round(stages.fetch.wallMs);
    return {
      image: this.#session.source.image,
      digest: image.manifestDigest,
      ...fetched,
      misses: this.#session.retries.misses,
      durationMs,
      timeline: timeline.last(durationMs),
      stages,
    };
  }

  async close(): Promise<void> {
    const workers = await this.#workers?.catch(() => undefined); // `run` throws it
    await workers?.close();
  }

  /** All layers in the order in which a pull fetches them, each once, even if the store has them. */
  async #layers(image: ResolvedImage, paths: StorePaths): Promise<MissingLayer[]> {
    const { registry, settings } = this.#session;
    await this.#session.request(() => registry.open());
    const all = imageLayers(image, paths).map((layer) => ({ ...layer, cachedTarBytes: undefined }));
    const { allowForeign } = settings;
    return missingLayers(all, { registry, allowForeign, warn: this.#warn });
  }

  async #fetch(
    context: PullContext,
    layers: readonly MissingLayer[],
  ): Promise<Pick<NetworkMeasurement, 'bytes' | 'requests'> & { readonly timeline: Timeline }> {
    const blobs = planBlobs(layers, planLimits(context.settings.connections));
    const fetchBytes = sumOfSizes(layers);
    const requests = blobs.reduce((sum, { ranges }) => sum + countOf(ranges()), 0);
    const planned = { totalBytes: fetchBytes, fetchBytes, reuseBytes: 0, resumeBytes: 0, requests };
    context.emit({ event: 'planned', ...planned });
    const threads = fetchThreads(context.settings.workers, fetchBytes, layers.every(isLikelyOpaque));
    const mayShare = threads === 1 || !layers.some(isLikelyOpaque);
    const pool = await context.startFetchers(threads, mayShare);
    await Promise.all(Array.from({ length: threads }, () => pool.run({ task: 'load-client' })));
    const fetcher = new Fetcher({ context, startPool: async () => pool, layers: blobs.length });
    const { counters, rateLimit } = this.#session.setup;
    // Otherwise the time until here could be made up for.
    if (rateLimit !== undefined) resetRateLimit(rateLimit);
    const timeline = new Timeline(counters);
    try {
      await Promise.all(blobs.map((blob, row) => fetchBlob(context, fetcher, row, blob)));
    } finally {
      timeline.end();
    }
    const { fetchedBytes: bytes, requests: sent } = sumOfFetches(fetcher.figures);
    return { bytes, requests: sent, timeline };
  }
}

/** The bytes received since it was made. */
class Timeline {
  readonly #points: Array<readonly [number, number]> = [];
  readonly #received: CounterReader;
  readonly #bytesBefore: number;
  readonly #startedMs = performance.now();
  readonly #timer: NodeJS.Timeout;
  #endedMs = 0;

  constructor(counters: Uint32Array) {
    this.#received = new CounterReader(counters, 'received');
    this.#bytesBefore = this.#received.total();
    this.#timer = setInterval(() => this.#note(), TICK_MS);
  }

  end(): void {
    clearInterval(this.#timer);
    this.#note();
  }

  #note(): void {
    this.#endedMs = performance.now() - this.#startedMs;
    this.#points.push([this.#endedMs, this.#received.total() - this.#bytesBefore]);
  }

  /** The points of the last `durationMs`, in milliseconds from their beginning. */
  last(durationMs: number): Array<readonly [number, number]> {
    const leadMs = this.#endedMs - durationMs;
    return this.#points
      .map(([ms, bytes]) => [Math.round(ms - leadMs), bytes] as const)
      .filter(([ms]) => ms >= 0);
  }
}

/** A blob, and the ranges by which a pull would fetch it. */
interface PlannedBlob {
  readonly layer: MissingLayer;
  readonly ranges: () => Iterable<BlobRange>;
}

/**
 * The blobs in the order of a pull: opaque ones first, the largest before the others, then the
 * chunked ones in the order of the image.
 */
function planBlobs(layers: readonly MissingLayer[], limits: PlanLimits): PlannedBlob[] {
  const opaque = layers.filter(isLikelyOpaque).sort((a, b) => b.blob.sizeBytes - a.blob.sizeBytes);
  const chunked = layers.filter((layer) => !isLikelyOpaque(layer));
  const remaining = chunked.map((_, row) => sumOfSizes(chunked.slice(row)));
  return [
    ...opaque.map((layer) => ({ layer, ranges: () => opaqueRanges(layer.blob.sizeBytes, limits) })),
    ...chunked.map((layer, row) => ({
      layer,
      ranges: () => cutBlob(layer.blob.sizeBytes, remaining[row]!, limits),
    })),
  ];
}

function* opaqueRanges(blobBytes: number, limits: PlanLimits): Generator<BlobRange, void> {
  for (const { blobStart, blobEnd } of planOpaque({ blobBytes, cached: [] }, limits))
    yield { start: blobStart, end: blobEnd };
}

async function withSizes(context: PullContext, layers: readonly MissingLayer[]): Promise<MissingLayer[]> {
  const measured = await measureBlobs(
    context,
    layers.map(({ blob, otherUrls }) => ({ blob, urls: [blob.url, ...otherUrls] })),
  );
  return layers.map((layer, i) => {
    const { sizeBytes } = measured[i] ?? layer.blob;
    return { ...layer, blob: { ...layer.blob, sizeBytes } };
  });
}

/** Fetches a blob into nothing; as a whole, where the server ignores ranges. */
async function fetchBlob(
  context: PullContext,
  fetcher: Fetcher,
  row: number,
  { layer, ranges }: PlannedBlob,
): Promise<void> {
  const { blob, otherUrls } = layer;
  const whole = { start: 0, end: blob.sizeBytes };
  await fromAnyUrl([blob.url, ...otherUrls], context.emit, async (url) => {
    const source = { ...blob, url };
    const fetch = (some: Iterable<BlobRange>) =>
      new RangesFetch({ blob: source, fetcher, layer: row }).run(some);
    if (ignoresRanges(context, source)) return fetch([whole]);
    try {
      return await fetch(ranges());
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== 'unsupported') throw error;
      return fetch([whole]);
    }
  });
}

function sumOfSizes(layers: readonly MissingLayer[]): number {
  return layers.reduce((sum, { blob }) => sum + blob.sizeBytes, 0);
}

function countOf(items: Iterable<unknown>): number {
  let count = 0;
  for (const _ of items) count += 1;
  return count;
}
