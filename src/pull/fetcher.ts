import { inLayer, PullError } from '../format/error.js';
import type { FetchSpanResult, WrongBytes } from '../pool/messages.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import type { PackId } from '../store/paths.js';
import type { Extent } from './assembly.js';
import type { PullContext } from './context.js';
import type { ChunkedLayer } from './layer.js';

/** A range to fetch for a span of the plan: all of it, or what is left after bytes that proved wrong. */
export interface SpanJob {
  readonly layer: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /** The next part, in tar order, is on disk and proven as far as it can be. */
  readonly onPart: (part: Extent) => void;
  /** How often bytes of this span have come wrong before. */
  readonly retries?: number;
}

/** Places of one span that may come wrong once each; beyond that something on the way is broken for good. */
const MOST_RETRIES = 8;

/** What fetching one layer's spans cost so far. */
export interface FetchFigures {
  fetchedBytes: number;
  requests: number;
}

/**
 * Hands spans to the workers, in order, never more than there are connections, nor than the registry puts up with: what waits, waits here, where
 * it can be dropped at once, and not in a worker's queue. Wrong bytes are fetched once more, then the pull ends.
 */
export class Fetcher {
  readonly figures: FetchFigures[];
  readonly #context: PullContext;
  readonly #startPool: () => Promise<WorkerPool>;
  #pool: Promise<WorkerPool> | undefined;
  readonly #layers: readonly ChunkedLayer[];
  readonly #pieceBytes: number;
  readonly #waiting: SpanJob[] = [];
  /** The first of `#waiting` that still waits. */
  #next = 0;
  /** Goes before all that waits. */
  readonly #again: SpanJob[] = [];
  readonly #retried = new Set<string>();
  #running = 0;
  #sequence = 0;
  #lastByteMs = performance.now();

  constructor(options: {
    context: PullContext;
    /** Called when the first span is to be fetched. */
    startPool: () => Promise<WorkerPool>;
    layers: readonly ChunkedLayer[];
    pieceBytes: number;
  }) {
    this.#context = options.context;
    this.#startPool = options.startPool;
    this.#layers = options.layers;
    this.#pieceBytes = options.pieceBytes;
    this.figures = options.layers.map(() => ({ fetchedBytes: 0, requests: 0 }));
  }

  /** When the last content byte had been received and written, by `performance.now()`. */
  get lastByteMs(): number {
    return this.#lastByteMs;
  }

  /** Adds jobs behind those that wait. */
  add(jobs: Iterable<SpanJob>): void {
    for (const job of jobs) this.#waiting.push(job);
    this.#fill();
  }

  #fill(): void {
    while (this.#running < this.#context.concurrency.limit && this.#context.stop.reason === undefined) {
      const job = this.#again.shift() ?? this.#waiting[this.#next++];
      if (job === undefined) {
        this.#waiting.length = 0;
        this.#next = 0;
        return;
      }
      this.#running += 1;
      void this.#run(job);
    }
  }

  async #run(job: SpanJob): Promise<void> {
    const layer = this.#layers[job.layer]!;
    const sequence = ++this.#sequence;
    this.#context.patience.asking(1);
    try {
      const { blob, table } = layer;
      const { blobStart, blobEnd, tarStart, tarEnd } = job;
      this.#pool ??= this.#startPool();
      const result = await (await this.#pool).run({
        task: 'fetch-span',
        sequence,
        blob,
        table,
        blobStart,
        blobEnd,
        tarStart,
        tarEnd,
        pieceBytes: this.#pieceBytes,
      });
      this.#context.concurrency.good();
      await this.#accept(job, result);
    } catch (error) {
      this.#context.stop.now(inLayer(error, layer.blob.digest));
    } finally {
      this.#running -= 1;
      this.#context.patience.asking(-1);
    }
    this.#fill();
  }

  async #accept(job: SpanJob, result: FetchSpanResult): Promise<void> {
    const figures = this.figures[job.layer]!;
    figures.fetchedBytes += result.fetchedBytes;
    figures.requests += result.requests;
    this.#lastByteMs = performance.now();
    const pack = result.pack as PackId;
    this.#context.packs.add(pack);
    if (result.wrong !== undefined) await this.#fetchAgain(job, result.wrong);
    if (result.goodTarBytes > 0)
      job.onPart({ pack, offset: result.packOffset, lengthBytes: result.goodTarBytes });
  }

  /** Bytes that came whole and wrong are asked for once more, before everything that waits. */
  async #fetchAgain(job: SpanJob, wrong: WrongBytes): Promise<void> {
    // What cannot be decoded and a content with another digest can begin at one place and be two faults.
    const key = `${job.layer}:${wrong.blobStart}:${wrong.content}`;
    const retries = (job.retries ?? 0) + 1;
    if (this.#retried.has(key) || retries > MOST_RETRIES) throw await this.#describe(job, wrong);
    this.#retried.add(key);
    this.#context.emit({ event: 'warning', message: `${wrong.problem}; fetching it once more` });
    this.#again.push({ ...job, blobStart: wrong.blobStart, tarStart: wrong.tarStart, retries });
  }

  async #describe(job: SpanJob, wrong: WrongBytes): Promise<PullError> {
    const layer = this.#layers[job.layer]!;
    const hint =
      'the registry or something on the way changes bytes: ask whoever runs it, or pull from another one';
    if (wrong.content < 0) return new PullError('digest-mismatch', `${wrong.problem}, twice`, { hint });
    const path = await this.#context.support
      .run({
        task: 'name-content',
        toc: layer.positions.toc.digest,
        tocRawBytes: layer.positions.toc.rawBytes,
        content: wrong.content,
      })
      .catch(
        (error: unknown) =>
          `content ${wrong.content} (${error instanceof Error ? error.message : String(error)})`,
      );
    const message = `${path} does not match its digest: expected ${wrong.expected}, got ${wrong.actual}, twice`;
    return new PullError('digest-mismatch', message, { hint });
  }
}
