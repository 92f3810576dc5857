import { cpuSeconds } from './process.js';

/** What one kind of work cost, all its turns together. */
export interface Cost {
  readonly bytes: number;
  readonly cpuSeconds: number;
  readonly wallSeconds: number;
}

/** Adds up the turns of one kind of work, of which others run in between. */
export class Stopwatch {
  /** Bytes processed so far, counted by the caller. */
  bytes = 0;
  #cpuSeconds = 0;
  #wallMs = 0;

  /** Times `work`. The CPU is that of the whole process, its threads included. */
  turn<T>(work: () => T): T {
    const stop = this.#start();
    const result = work();
    stop();
    return result;
  }

  /** As `turn`, until what `work` promises is there. */
  async wait<T>(work: () => Promise<T>): Promise<T> {
    const stop = this.#start();
    const result = await work();
    stop();
    return result;
  }

  get cost(): Cost {
    return { bytes: this.bytes, cpuSeconds: this.#cpuSeconds, wallSeconds: this.#wallMs / 1000 };
  }

  #start(): () => void {
    const cpu = process.cpuUsage();
    const startedMs = performance.now();
    return () => {
      this.#cpuSeconds += cpuSeconds(process.cpuUsage(cpu));
      this.#wallMs += performance.now() - startedMs;
    };
  }
}
