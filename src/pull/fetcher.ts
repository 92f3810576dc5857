import { createRangeControl, type RangeControl, resetControl } from '../pool/range-control.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { FetchFigures } from './layer.js';
import type { PullContext } from './pull-context.js';
import { SlowRanges } from './slow-ranges.js';

/** What several jobs belong to: all of them are given up at once. */
export interface Work {
  /** Row of the pull's layers. */
  readonly layer: number;
  dropped: boolean;
}

/** What the fetcher gives a range for its task. */
export interface RangeTurn {
  /** Its place in the pull's order; the earlier is decoded first. */
  readonly sequence: number;
  /** Shared with the worker. Where it was asked to stop, its rest is to be added as jobs that go first. */
  readonly control: RangeControl;
}

/** One range of a blob to be fetched by a worker. */
export interface FetchJob {
  readonly work: Work;
  readonly sizeBytes: number;
  /** How many ranges were stopped that it was a part of. */
  readonly splits: number;
  /** `cost` is told what it cost before anybody hears of what it brought, as that can be the pull's last byte. */
  run(pool: TaskRunner, turn: RangeTurn, cost: (figures: FetchFigures) => void): Promise<void>;
  /** It could not be done. */
  failed(error: unknown): void;
}

/**
 * Hands jobs to the workers, in order, never more than there are connections, nor than the registry puts up with: what waits,
 * waits here, where it can be dropped at once, and not in a worker's queue.
 */
export class Fetcher {
  /** What fetching each layer has cost so far. */
  readonly figures: readonly FetchFigures[];
  readonly #context: PullContext;
  readonly #startPool: () => Promise<TaskRunner>;
  #pool: Promise<TaskRunner> | undefined;
  /** In order; each job is made when it is its turn. */
  readonly #waiting: Iterator<FetchJob>[] = [];
  /** Goes before all that waits. */
  readonly #again: FetchJob[] = [];
  readonly #running = new Set<{ readonly work: Work; readonly ended: Promise<void> }>();
  readonly #slow = new SlowRanges(() => this.#isIdle);
  /** Those of ranges that are over. */
  readonly #controls: RangeControl[] = [];
  #sequence = 0;
  #lastByteMs = performance.now();

  constructor(options: {
    context: PullContext;
    /** Called when the first job is to be done. */
    startPool: () => Promise<TaskRunner>;
    layers: number;
  }) {
    this.#context = options.context;
    this.#startPool = options.startPool;
    this.figures = Array.from({ length: options.layers }, () => ({ fetchedBytes: 0, requests: 0 }));
  }

  /** When the last byte had been received and written, by `performance.now()`. */
  get lastByteMs(): number {
    return this.#lastByteMs;
  }

  /** Adds jobs behind those that wait. An iterator is asked for a job when that can begin. */
  add(jobs: Iterable<FetchJob>): void {
    this.#waiting.push(jobs[Symbol.iterator]());
    this.#fill();
  }

  /** Adds a job before all that wait. */
  addFirst(job: FetchJob): void {
    this.#again.push(job);
    this.#fill();
  }

  /** Resolves when no job of this work runs that does now. */
  async ended(work: Work): Promise<void> {
    const ofWork = [...this.#running].filter((running) => running.work === work);
    await Promise.all(ofWork.map(({ ended }) => ended));
  }

  /** How many bytes each part of the rest of a range should have that was stopped and is about to end. */
  partBytes(restBytes: number): number {
    return this.#slow.partBytes(restBytes, this.#context.concurrency.limit - this.#running.size + 1);
  }

  /** Nothing waits for the connections that are free. */
  get #isIdle(): boolean {
    const { concurrency, stop, settings } = this.#context;
    // A limit makes all ranges slow on purpose, and each by turns.
    if (stop.reason !== undefined || settings.limitRate !== undefined) return false;
    return this.#running.size > 0 && this.#running.size < concurrency.limit;
  }

  #fill(): void {
    this.#begin();
    this.#slow.watch();
  }

  #begin(): void {
    while (this.#running.size < this.#context.concurrency.limit && this.#context.stop.reason === undefined) {
      const job = this.#again.shift() ?? this.#nextWaiting();
      if (job === undefined) return;
      if (job.work.dropped) continue;
      const running = { work: job.work, ended: this.#run(job) };
      this.#running.add(running);
      void running.ended.then(() => {
        this.#running.delete(running);
        this.#fill();
      });
    }
  }

  #nextWaiting(): FetchJob | undefined {
    for (;;) {
      const [jobs] = this.#waiting;
      if (jobs === undefined) return undefined;
      const { done, value } = jobs.next();
      if (done !== true) return value;
      this.#waiting.shift();
    }
  }

  async #run(job: FetchJob): Promise<void> {
    const control = this.#controls.pop() ?? createRangeControl();
    resetControl(control);
    const turn = { sequence: ++this.#sequence, control };
    const ended = this.#slow.started({ ...job, control });
    this.#context.patience.asking(1);
    try {
      this.#pool ??= this.#startPool();
      await job.run(await this.#pool, turn, (cost) => this.#note(job.work.layer, cost));
    } catch (error) {
      if (!job.work.dropped) job.failed(error);
    } finally {
      ended();
      this.#controls.push(control);
      this.#context.patience.asking(-1);
    }
  }

  #note(layer: number, { fetchedBytes, requests }: FetchFigures): void {
    const figures = this.figures[layer]!;
    figures.fetchedBytes += fetchedBytes;
    figures.requests += requests;
    this.#lastByteMs = performance.now();
    this.#context.concurrency.good();
  }
}
