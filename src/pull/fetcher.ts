import { createRangeControl, type RangeControl, resetControl } from '../pool/range-control.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { FetchFigures } from './layer.js';
import type { PullContext } from './pull-context.js';
import { SlowRanges } from './slow-ranges.js';

/** A group of jobs, which are dropped together. */
export interface Work {
  /** Row of the layer in the pull. */
  readonly layer: number;
  dropped: boolean;
}

/** Parameters from the fetcher for the task of a range. */
export interface RangeTurn {
  /** Its position in the order of the pull; earlier ranges are decoded first. */
  readonly sequence: number;
  /**
   * Shared with the worker. When the range is stopped, its job adds the remainder by `addFirst`.
   */
  readonly control: RangeControl;
}

/** One range of a blob to be fetched by a worker. */
export interface FetchJob {
  readonly work: Work;
  readonly sizeBytes: number;
  /** How many stops of slow ranges led to this job. */
  readonly splits: number;
  /** Calls `cost` before it passes on what it received, as that can end the pull. */
  run(pool: TaskRunner, turn: RangeTurn, cost: (figures: FetchFigures) => void): Promise<void>;
  /** Called when `run` has failed, unless the work was dropped. */
  failed(error: unknown): void;
}

/**
 * Hands jobs to the workers, in order and as many at a time as the concurrency limit allows. Jobs
 * wait here and not in a worker's queue, so that they can be dropped at once.
 */
export class Fetcher {
  /** The cost of each layer so far. */
  readonly figures: readonly FetchFigures[];
  readonly #context: PullContext;
  readonly #startPool: () => Promise<TaskRunner>;
  #pool: Promise<TaskRunner> | undefined;
  /** In order; each job is created when it can begin. */
  readonly #waiting: Iterator<FetchJob>[] = [];
  /** Jobs that go before all others. */
  readonly #again: FetchJob[] = [];
  readonly #running = new Set<{ readonly work: Work; readonly ended: Promise<void> }>();
  readonly #slow = new SlowRanges(() => this.#isIdle);
  /** Controls to reuse, of ranges that have ended. */
  readonly #controls: RangeControl[] = [];
  #sequence = 0;
  #lastByteMs = performance.now();

  constructor(options: {
    context: PullContext;
    /** Called when the first job begins. */
    startPool: () => Promise<TaskRunner>;
    layers: number;
  }) {
    this.#context = options.context;
    this.#startPool = options.startPool;
    this.figures = Array.from({ length: options.layers }, () => ({ fetchedBytes: 0, requests: 0 }));
  }

  /** When the last byte was received and written, by `performance.now()`. */
  get lastByteMs(): number {
    return this.#lastByteMs;
  }

  /** Adds jobs behind those that wait. Takes each job from the iterator when it can begin. */
  add(jobs: Iterable<FetchJob>): void {
    this.#waiting.push(jobs[Symbol.iterator]());
    this.#fill();
  }

  /** Adds a job before all that wait. */
  addFirst(job: FetchJob): void {
    this.#again.push(job);
    this.#fill();
  }

  /** Resolves when all jobs of this work that run now have ended. */
  async ended(work: Work): Promise<void> {
    const ofWork = [...this.#running].filter((running) => running.work === work);
    await Promise.all(ofWork.map(({ ended }) => ended));
  }

  /** How many bytes each part of the remainder of a stopped range should have. */
  partBytes(remainingBytes: number): number {
    return this.#slow.partBytes(remainingBytes, this.#context.concurrency.limit - this.#running.size + 1);
  }

  /** Whether connections are free and no job waits for them. */
  get #isIdle(): boolean {
    const { concurrency, stop, settings } = this.#context;
    // --limit-rate slows all ranges down on purpose, each in turn.
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
    this.#context.retries.countRequests(1);
    try {
      this.#pool ??= this.#startPool();
      await job.run(await this.#pool, turn, (cost) => this.#note(job.work.layer, cost));
    } catch (error) {
      if (!job.work.dropped) job.failed(error);
    } finally {
      ended();
      this.#controls.push(control);
      this.#context.retries.countRequests(-1);
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
