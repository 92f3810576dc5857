import {
  createRangeControl,
  type RangeControl,
  receivedBytes,
  requestStop,
  resetControl,
} from '../pool/shared-memory.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { FetchFigures } from './layer.js';
import type { Awaited, LayerSource } from './layer-progress.js';
import type { PullContext } from './pull-context.js';

/** A group of jobs, which are dropped together. */
export interface Work {
  /** Row of the layer in the pull. */
  readonly layer: number;
  dropped: boolean;
}

/** One range of a blob to be fetched by a worker. */
export interface FetchJob {
  readonly work: Work;
  readonly sizeBytes: number;
  /** How many stops of slow ranges led to this job. */
  readonly splits: number;
  /**
   * Calls `cost` before it passes on what it received, as that can end the pull. `control` is shared
   * with the worker: when the range is stopped, the job adds the remainder by `addFirst`.
   */
  run(pool: TaskRunner, control: RangeControl, cost: (figures: FetchFigures) => void): Promise<void>;
  /** Called when `run` has failed, unless the work was dropped. */
  failed(error: unknown): void;
}

/**
 * Hands jobs to the workers, in order and as many at a time as the concurrency limit allows. Jobs
 * wait here and not in a worker's queue, so that they can be dropped at once.
 */
export class Fetcher implements LayerSource {
  /** The cost of each layer so far. */
  readonly figures: readonly FetchFigures[];
  /** When the last byte was received and written, by `performance.now()`. */
  lastByteMs = performance.now();
  readonly #context: PullContext;
  readonly #startPool: () => Promise<TaskRunner>;
  #pool: Promise<TaskRunner> | undefined;
  /** In order; each job is created when it can begin. */
  readonly #waiting: Iterator<FetchJob>[] = [];
  /** Jobs that go before all others. */
  readonly #again: FetchJob[] = [];
  readonly #running = new Set<{ readonly work: Work; readonly ended: Promise<void> }>();
  /** The ranges in flight whose cost is not in `figures` yet. */
  readonly #arriving = new Map<RangeControl, FetchJob>();
  readonly #slow = new SlowRanges(() => this.#isIdle);
  /** Controls to reuse, of ranges that have ended. */
  readonly #controls: RangeControl[] = [];

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
    const connections = this.#context.concurrency.limit - this.#running.size + 1;
    return partBytes(remainingBytes, connections, this.#slow.usualRate);
  }

  receivedByLayer(): readonly number[] {
    const bytes = this.figures.map(({ fetchedBytes }) => fetchedBytes);
    for (const [control, { work }] of this.#arriving) bytes[work.layer]! += receivedBytes(control);
    return bytes;
  }

  get awaited(): Awaited | undefined {
    let awaited: Awaited | undefined;
    for (const [control, { sizeBytes }] of this.#arriving) {
      const received = receivedBytes(control);
      if (received > 0 && received < sizeBytes) return 'body';
      if (received === 0) awaited = 'answer';
    }
    return awaited;
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
    const ended = this.#slow.started(job, control);
    this.#arriving.set(control, job);
    this.#context.retries.countRequests(1);
    try {
      this.#pool ??= this.#startPool();
      await job.run(await this.#pool, control, (cost) => {
        this.#arriving.delete(control);
        this.#note(job.work.layer, cost);
      });
    } catch (error) {
      if (!job.work.dropped) job.failed(error);
    } finally {
      ended();
      this.#arriving.delete(control);
      this.#controls.push(control);
      this.#context.retries.countRequests(-1);
    }
  }

  #note(layer: number, { fetchedBytes, requests }: FetchFigures): void {
    const figures = this.figures[layer]!;
    figures.fetchedBytes += fetchedBytes;
    figures.requests += requests;
    this.lastByteMs = performance.now();
    this.#context.concurrency.good();
  }
}

/**
 * A remainder that arrives within this time at its rate is not worth a new connection, which takes
 * up to a second.
 */
const MIN_REMAINING_MS = 2000;

/**
 * A range is slow below this share of the usual rate: connections to one server differ by half as a
 * rule.
 */
const SLOW_SHARE = 1 / 4;

/** Minimum of one more request, as time at the usual rate and in bytes: it costs a round trip. */
const MIN_PART_MS = 1000;
const MIN_PART_BYTES = 256 * 1024;

/**
 * How often a byte moves to another connection: where that does not help, the network itself is
 * slow.
 */
const MAX_SPLITS = 3;

/** Received bytes, and the time they took. */
interface Pace {
  readonly bytes: number;
  readonly ms: number;
}

/** A range in flight, and what it received while it was watched. */
export interface Watched extends Pace {
  readonly remainingBytes: number;
  /** How many stops of slow ranges led to it. */
  readonly splits: number;
  /**
   * Whether its first byte had arrived when it was first watched. Timeouts handle silent ranges.
   */
  readonly hasBegun: boolean;
}

/** The median rate by bytes (small ranges hardly count), in bytes a millisecond; 0 without any. */
export function usualRate(finished: readonly Pace[]): number {
  const byRate = finished.filter(({ bytes }) => bytes > 0).toSorted((a, b) => rateOf(a) - rateOf(b));
  const half = byRate.reduce((sum, { bytes }) => sum + bytes, 0) / 2;
  let slowerBytes = 0;
  for (const pace of byRate) {
    slowerBytes += pace.bytes;
    if (slowerBytes >= half) return rateOf(pace);
  }
  return 0;
}

/** The slow range that would take longest, if its remainder is worth another request. */
export function slowest<T extends Watched>(ranges: readonly T[], usual: number): T | undefined {
  const slow = ranges.filter(
    (range) =>
      range.hasBegun &&
      range.bytes > 0 &&
      range.splits < MAX_SPLITS &&
      rateOf(range) < usual * SLOW_SHARE &&
      remainingMs(range) > MIN_REMAINING_MS,
  );
  return slow.toSorted((a, b) => remainingMs(b) - remainingMs(a))[0];
}

/** How many bytes each part of a remainder has that is fetched over up to `connections`. */
export function partBytes(remainingBytes: number, connections: number, usual: number): number {
  const parts = Math.floor(remainingBytes / Math.max(MIN_PART_BYTES, usual * MIN_PART_MS));
  return Math.ceil(remainingBytes / Math.max(1, Math.min(connections, parts)));
}

const rateOf = ({ bytes, ms }: Pace) => bytes / Math.max(1, ms);
const remainingMs = (range: Watched) => range.remainingBytes / rateOf(range);

/**
 * How long a range is watched before its rate counts: a lost packet or a busy thread can halt a
 * good connection for a second.
 */
const WATCH_MS = 2000;

/** How many rates to keep, of the ranges that finished last: networks change. */
const MAX_RATES = 32;

/** A range in flight. */
interface Range {
  readonly control: RangeControl;
  readonly sizeBytes: number;
  readonly splits: number;
  readonly startedMs: number;
  /** Its received bytes when last measured; undefined before connections were idle. */
  seen: { readonly ms: number; readonly bytes: number } | undefined;
  /**
   * How often it was asked to stop; where it cannot be cut, it continues over another connection.
   */
  stops: number;
}

/**
 * Stops slow ranges: while connections are free and no job waits for them, asks the slowest range
 * to stop if it is much slower than the others were. One at a time, as the rates of its remainder
 * show whether that helps.
 */
class SlowRanges {
  readonly #isIdle: () => boolean;
  readonly #running = new Set<Range>();
  readonly #finished: Pace[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `isIdle`: whether connections are free and no job waits for them. */
  constructor(isIdle: () => boolean) {
    this.#isIdle = isIdle;
  }

  /** Adds a range that begins. Returns a function to call at its end. */
  started({ sizeBytes, splits }: FetchJob, control: RangeControl): () => void {
    const running = { control, sizeBytes, splits, startedMs: performance.now(), seen: undefined, stops: 0 };
    this.#running.add(running);
    return () => this.#ended(running);
  }

  watch(): void {
    if (!this.#isIdle()) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    } else if (this.#timer === undefined) {
      for (const range of this.#running) measure(range);
      this.#timer = this.#wait();
    }
  }

  get usualRate(): number {
    return usualRate(this.#finished);
  }

  #ended(range: Range): void {
    this.#running.delete(range);
    if (range.stops > 0) return;
    this.#finished.push({ bytes: receivedBytes(range.control), ms: performance.now() - range.startedMs });
    if (this.#finished.length > MAX_RATES) this.#finished.shift();
  }

  #wait(): NodeJS.Timeout {
    const dueMs = performance.now() + WATCH_MS;
    return setTimeout(() => {
      // So late, the process was suspended or is as busy as its receiving threads: rates say
      // nothing.
      const isLate = performance.now() > dueMs + WATCH_MS / 2;
      const watched = Array.from(this.#running, (range) => ({ range, ...measure(range) }));
      if (!isLate && this.#isIdle()) this.#stopSlowest(watched);
      this.#timer = this.#isIdle() ? this.#wait() : undefined;
    }, WATCH_MS).unref();
  }

  #stopSlowest(watched: ReadonlyArray<Watched & { readonly range: Range }>): void {
    const slow = slowest(watched, this.usualRate)?.range;
    if (slow === undefined) return;
    slow.stops += 1;
    requestStop(slow.control);
  }
}

/** What a range received since it was last measured. */
function measure(range: Range): Watched {
  const ms = performance.now();
  const bytes = receivedBytes(range.control);
  const { sizeBytes, splits, stops, seen } = range;
  range.seen = { ms, bytes };
  return {
    bytes: bytes - (seen?.bytes ?? 0),
    ms: ms - (seen?.ms ?? ms),
    remainingBytes: Math.max(0, sizeBytes - bytes),
    splits: splits + stops,
    hasBegun: (seen?.bytes ?? 0) > 0,
  };
}
