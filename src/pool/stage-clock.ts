/** The stages of a pull, an export or a copy, in the order of results. */
const STAGE_NAMES = ['resolve', 'metadata', 'fetch', 'decode', 'hash', 'write', 'sync', 'prove'] as const;

/** A stage of the work, as `docs/measuring.md` has them. */
export type StageName = (typeof STAGE_NAMES)[number];

/** Numbers of a stage in a row: its bytes, its times, and when it first began and last ended. */
const BYTES = 0;
const WORK = 1;
const WAIT = 2;
const BEGAN = 3;
const ENDED = 4;
const FIELDS = 5;

/** The length of a row, in numbers. */
const ROW_LENGTH = STAGE_NAMES.length * FIELDS;

const BASES = eachStage((_, i) => i * FIELDS);

/** Returns an object with a value for each stage. */
export function eachStage<T>(create: (stage: StageName, i: number) => T): Record<StageName, T> {
  return Object.fromEntries(STAGE_NAMES.map((name, i) => [name, create(name, i)])) as Record<StageName, T>;
}

/** Stages whose time is that of the event loop while they are entered; the first has precedence. */
const ENTERED = ['resolve', 'metadata', 'fetch'] as const;

type EnteredStage = (typeof ENTERED)[number];

/**
 * Rows of the threads of one pool. Each thread writes its own row, without Atomics; the main thread
 * reads them when the tasks have ended.
 */
export interface StageRows {
  /** The number of rows that are taken. */
  readonly taken: Int32Array<SharedArrayBuffer>;
  readonly numbers: Float64Array<SharedArrayBuffer>;
}

/** Returns rows for so many threads, all zero. */
export function createStageRows(threads: number): StageRows {
  const bytes = threads * ROW_LENGTH * Float64Array.BYTES_PER_ELEMENT;
  return {
    taken: new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)),
    numbers: new Float64Array(new SharedArrayBuffer(bytes)),
  };
}

/**
 * Adds the time and the bytes of each stage in one thread. Called for pieces of 32 KiB and more, never for
 * single rows: a piece costs two readings of the clock, 0.1 µs (`docs/decisions.md`).
 */
export class StageClock {
  #row: Float64Array = new Float64Array(ROW_LENGTH);
  /** Time of this thread that `end` and `endWait` have added to stages. */
  #accountedMs = 0;
  /** How many times each stage is open or entered, and since when. */
  readonly #depth: Record<StageName, number> = eachStage(() => 0);
  readonly #openedMs: Record<StageName, number> = eachStage(() => 0);
  /** The readings of the last `#settle`. */
  #idleMs = 0;
  #activeMs = 0;
  #settledMs = 0;
  #settledAccountedMs = 0;
  /** `performance.now()` of threads starts at different times; with this, they have one clock. */
  readonly #offsetMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();

  /** Writes to a row of its own from now on. */
  useRow(rows: StageRows): void {
    const start = Atomics.add(rows.taken, 0, 1) * ROW_LENGTH;
    this.#row = rows.numbers.subarray(start, start + ROW_LENGTH);
  }

  get row(): Float64Array {
    return this.#row;
  }

  /** Returns what `end` needs. Work may be nested: the time of inner work is not part of the outer. */
  start(): number {
    return performance.now() - this.#accountedMs;
  }

  /** Adds the time since `start`, which returned `started`, as work, and bytes. */
  end(stage: StageName, started: number, bytes: number): void {
    this.#row[BASES[stage] + BYTES]! += bytes;
    this.#add(stage, WORK, started);
  }

  /** Adds the time since `start`, which returned `started`, as waiting. */
  endWait(stage: StageName, started: number): void {
    this.#add(stage, WAIT, started);
  }

  #add(stage: StageName, field: number, started: number): void {
    const nowMs = performance.now();
    const ms = nowMs - this.#accountedMs - started;
    this.#accountedMs += ms;
    const base = BASES[stage];
    this.#row[base + field]! += ms;
    this.#mark(base, nowMs - ms, nowMs);
  }

  addBytes(stage: StageName, bytes: number): void {
    this.#row[BASES[stage] + BYTES]! += bytes;
  }

  /** Adds a time of waiting, from and to times of `performance.now()`, and bytes. */
  addWait(stage: StageName, beganMs: number, endedMs: number, bytes: number): void {
    const base = BASES[stage];
    this.#row[base + BYTES]! += bytes;
    this.#row[base + WAIT]! += endedMs - beganMs;
    this.#mark(base, beganMs, endedMs);
  }

  /**
   * Adds the time until `action` settles, as work of other threads (libuv's, a program) or as waiting.
   * Actions of a stage that overlap count once.
   */
  async during<T>(stage: StageName, kind: 'work' | 'wait', action: () => Promise<T>): Promise<T> {
    if (this.#depth[stage]++ === 0) this.#openedMs[stage] = performance.now();
    try {
      return await action();
    } finally {
      if (--this.#depth[stage] === 0) {
        const nowMs = performance.now();
        const openedMs = this.#openedMs[stage];
        const base = BASES[stage];
        this.#row[base + (kind === 'work' ? WORK : WAIT)]! += nowMs - openedMs;
        this.#mark(base, openedMs, nowMs);
      }
    }
  }

  /**
   * Until `leave`, the idle time of the event loop is waiting of this stage, and its busy time without
   * that of other stages is work.
   */
  enter(stage: EnteredStage): void {
    this.#settle();
    this.#depth[stage]++;
    this.#mark(BASES[stage], this.#settledMs, this.#settledMs);
  }

  leave(stage: EnteredStage): void {
    this.#settle();
    this.#depth[stage]--;
    this.#mark(BASES[stage], this.#settledMs, this.#settledMs);
  }

  /** Enters a stage until `action` settles. */
  async within<T>(stage: EnteredStage, action: () => T | Promise<T>): Promise<T> {
    this.enter(stage);
    try {
      return await action();
    } finally {
      this.leave(stage);
    }
  }

  /** Adds the time since the last call to the stage that is entered, if any. */
  #settle(): void {
    const { idle, active } = performance.eventLoopUtilization();
    const stage = ENTERED.find((each) => this.#depth[each] > 0);
    if (stage !== undefined) {
      const base = BASES[stage];
      // Synchronous work since then was added to other stages.
      this.#row[base + WORK]! += Math.max(
        0,
        active - this.#activeMs - (this.#accountedMs - this.#settledAccountedMs),
      );
      this.#row[base + WAIT]! += idle - this.#idleMs;
    }
    this.#settledAccountedMs = this.#accountedMs;
    this.#idleMs = idle;
    this.#activeMs = active;
    this.#settledMs = performance.now();
  }

  #mark(base: number, beganMs: number, endedMs: number): void {
    const began = beganMs + this.#offsetMs;
    const row = this.#row;
    if (row[base + BEGAN] === 0 || began < row[base + BEGAN]!) row[base + BEGAN] = began;
    if (endedMs + this.#offsetMs > row[base + ENDED]!) row[base + ENDED] = endedMs + this.#offsetMs;
  }
}

/** The clock of this thread, for code that runs in a thread of a pool. */
export const threadClock = new StageClock();

/** What rows say of one stage together. Times by one clock, in milliseconds. */
export interface StageSum {
  readonly bytes: number;
  readonly workMs: number;
  readonly waitMs: number;
  /** From the first beginning to the last end. */
  readonly wallMs: number;
}

/** Adds up one stage of the rows of all threads: `arrays` have one row after the other. */
export function sumStage(stage: StageName, arrays: readonly Float64Array[]): StageSum {
  let [bytes, workMs, waitMs, began, ended] = [0, 0, 0, Number.POSITIVE_INFINITY, 0];
  for (const numbers of arrays) {
    for (let base = BASES[stage]; base < numbers.length; base += ROW_LENGTH) {
      bytes += numbers[base + BYTES]!;
      workMs += numbers[base + WORK]!;
      waitMs += numbers[base + WAIT]!;
      if (numbers[base + BEGAN]! > 0) began = Math.min(began, numbers[base + BEGAN]!);
      ended = Math.max(ended, numbers[base + ENDED]!);
    }
  }
  return { bytes, workMs, waitMs, wallMs: Math.max(0, ended - began) };
}
