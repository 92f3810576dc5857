import { readIfReadable } from './cores.js';
import {
  createStageRows,
  eachStage,
  StageClock,
  type StageName,
  type StageRows,
  type StageSum,
  sumStage,
} from './stage-clock.js';

/** Bytes and times of one stage; `docs/measuring.md` says what each stage includes. */
export interface StageFigures {
  readonly bytes: number;
  /** From the stage's first beginning to its last end, in milliseconds. */
  readonly wallMs: number;
  /** Time in which its code ran, summed over threads, in milliseconds. */
  readonly workMs: number;
  /** Time in which threads waited for it, summed over threads, in milliseconds. */
  readonly waitMs: number;
}

/** Where the time went, and the settings in effect. A stage without anything to do has zeros. */
export interface Stages extends Readonly<Record<StageName, StageFigures>> {
  /** Worker threads that were started. */
  readonly threads: number;
  readonly workers: number;
  readonly connections: number;
  /** In bytes a second; null without a limit. */
  readonly limitRate: number | null;
  readonly patienceSeconds: number;
  /** Largest resident size of the process since it started. */
  readonly peakMemoryBytes: number;
  /** CPU time of the process during the call, with threads and programs that it ran. */
  readonly cpuSeconds: number;
  /** Share of the time in which the main thread's event loop was busy, 0 to 1. */
  readonly mainThreadBusy: number;
}

/** The settings that a result repeats. */
interface StageSettings {
  readonly workers: number;
  readonly connections: number;
  readonly limitRate: number | undefined;
  readonly patienceMs: number;
}

const NO_SETTINGS: StageSettings = { workers: 0, connections: 0, limitRate: undefined, patienceMs: 0 };

/**
 * Records the stages of one call, or of several one after the other that share a recorder, from its
 * creation on. Figures of the process include everything else that it does meanwhile.
 */
export class StageRecorder {
  /** For stages of the main thread. */
  readonly clock = new StageClock();
  readonly #busy = performance.eventLoopUtilization();
  readonly #cpu = process.cpuUsage();
  readonly #programSeconds = programSeconds();
  readonly #rows: Float64Array[] = [this.clock.row];
  #threads = 0;
  #settings: StageSettings | undefined;

  /** Sets what the result repeats as settings; of several calls the first counts. */
  set(settings: StageSettings): void {
    this.#settings ??= settings;
  }

  /** Returns rows for the threads of a new pool. */
  addThreads(threads: number): StageRows {
    const rows = createStageRows(threads);
    this.#threads += threads;
    this.#rows.push(rows.numbers);
    return rows;
  }

  /** The figures so far. */
  result(): Stages {
    const { user, system } = process.cpuUsage(this.#cpu);
    const { workers, connections, limitRate = null, patienceMs } = this.#settings ?? NO_SETTINGS;
    return {
      ...eachStage((stage) => figuresOf(stage, sumStage(stage, this.#rows))),
      threads: this.#threads,
      workers,
      connections,
      limitRate,
      patienceSeconds: patienceMs / 1000,
      peakMemoryBytes: peakMemoryBytes(),
      cpuSeconds: round((user + system) / 1e6 + programSeconds() - this.#programSeconds),
      mainThreadBusy: round(performance.eventLoopUtilization(this.#busy).utilization),
    };
  }
}

/** Threads wait for the main thread, too, while it resolves and plans: the wall time counts there. */
function figuresOf(stage: StageName, { bytes, wallMs, workMs, waitMs }: StageSum): StageFigures {
  const isOne = stage === 'resolve' || stage === 'metadata';
  const waited = isOne ? Math.max(0, wallMs - workMs) : waitMs;
  return { bytes, wallMs: round(wallMs), workMs: round(workMs), waitMs: round(waited) };
}

/** Microseconds of a time in milliseconds, and as many digits of others. */
function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/**
 * The largest resident size of this process: `VmHWM` of `/proc/self/status` (proc_pid_status(5)).
 * On Linux, `maxRSS` begins with the size of the process that started this one (execve keeps it).
 */
function peakMemoryBytes(): number {
  const kib = /^VmHWM:\s+([0-9]+) kB$/m.exec(readIfReadable('/proc/self/status'))?.[1];
  return 1024 * (kib === undefined ? process.resourceUsage().maxRSS : Number(kib));
}

/** Linux counts the CPU time of ended programs in ticks of 10 ms (proc(5), USER_HZ). */
const TICKS_PER_SECOND = 100;

/**
 * CPU seconds of all programs that this process has run and that have ended: `cutime` and `cstime` of
 * `/proc/self/stat` (proc_pid_stat(5)). 0 where there is no such file.
 */
function programSeconds(): number {
  const stat = readIfReadable('/proc/self/stat');
  // The second field, the name, may contain spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[13] ?? 0) + Number(fields[14] ?? 0);
  return ticks / TICKS_PER_SECOND;
}
