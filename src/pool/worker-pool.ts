import type { MessagePort } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { fromFailure } from '../format/error.js';
import { asOutOfFiles } from '../format/out-of-files.js';
import type { Outcome, Results, Task, WorkerEvent, WorkerSetup } from './messages.js';
import { workerEnvironment } from './worker-environment.js';

/** CommonJS: see there. */
export const ENTRY = new URL('../../workers/entry.cjs', import.meta.url);

/**
 * A worker's short-lived objects are few. V8's default of up to 48 MB a thread only delays their collection: 2 MB
 * lowers the peak of a pull by 20 MB at no cost in CPU time.
 */
const YOUNG_GENERATION_MB = 2;

/**
 * A Piscina pool that speaks our messages. Threads live as long as the pool: an idle thread that ended would take
 * its keep-alive sockets along. `atomics: disabled`, because the synchronous wait between tasks freezes them.
 * No task gets a signal, since that would serialise its worker: to abort is to destroy the pool.
 */
export class WorkerPool {
  readonly #piscina: Piscina;
  readonly #broken: Promise<never>;
  #destroyed = false;

  private constructor(piscina: Piscina) {
    this.#piscina = piscina;
    // Piscina tells of a thread that fails without a task by an event, which ends the process when nobody listens.
    // While it is being destroyed, answers that were on their way become such events, too.
    this.#broken = new Promise((_, reject) => {
      piscina.on('error', (error) => {
        if (!this.#destroyed) reject(error);
      });
    });
    this.#broken.catch(() => {}); // whoever runs a task hears of it
  }

  /** Starts `threads` threads that run up to `tasksPerThread` tasks each. */
  static async start(options: {
    threads: number;
    tasksPerThread: number;
    setup: WorkerSetup;
    onEvent: (event: WorkerEvent) => void;
  }): Promise<WorkerPool> {
    const { Piscina } = await import('piscina');
    const piscina = new Piscina({
      filename: ENTRY.href,
      minThreads: options.threads,
      maxThreads: options.threads,
      concurrentTasksPerWorker: options.tasksPerThread,
      atomics: 'disabled',
      stricterFIFO: true,
      workerData: options.setup,
      env: workerEnvironment(process.env),
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    });
    piscina.on('message', options.onEvent);
    return new WorkerPool(piscina);
  }

  /**
   * The result of a task.
   * @throws PullError as the task failed; a plain Error when its thread died
   */
  async run<T extends Task>(task: T, transfer: readonly MessagePort[] = []): Promise<Results[T['task']]> {
    // Piscina would start a new thread for it, and nobody would end that one.
    if (this.#destroyed) throw new Error('the worker threads have been ended');
    const running = this.#piscina.run(task, { transferList: [...transfer] });
    const outcome = (await Promise.race([running, this.#broken]).catch((error: unknown) => {
      throw asOutOfFiles(error);
    })) as Outcome<Results[T['task']]>;
    if (!outcome.ok) throw fromFailure(outcome.failure);
    return outcome.value;
  }

  /** Ends the threads at once, whatever they do. */
  async destroy(): Promise<void> {
    this.#destroyed = true;
    await this.#piscina.destroy();
  }
}
