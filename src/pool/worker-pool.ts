import { posix } from 'node:path';
import type { MessagePort, Worker } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { asOutOfResources } from '../files/storage-error.js';
import { fromFailure, PullError } from '../format/error.js';
import { cgroupPaths, readIfReadable } from './cores.js';
import type { Outcome, Results, Task, WorkerEvent, WorkerSetup } from './messages.js';
import type { StageRecorder } from './stages.js';

/** Returns the environment of threads: without the credentials, which only the main thread uses. */
export function workerEnvironment({
  DOCKER_AUTH_CONFIG: _,
  ...others
}: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return others;
}

/** CommonJS, for the reason in its source. */
export const ENTRY = new URL('../../bundle/threads/entry.cjs', import.meta.url);

/**
 * A worker has few short-lived objects. V8's default of up to 48 MB a thread only delays their
 * collection: 2 MB lowers the peak of a pull by 20 MB at no cost in CPU time.
 */
const YOUNG_GENERATION_MB = 2;

/**
 * A Piscina pool with typed tasks. Threads live as long as the pool: an idle thread that ended
 * would close its keep-alive sockets, and the synchronous wait of `atomics` would freeze them.
 * Tasks have no AbortSignal, since Piscina would then run one task at a time in a thread: to abort,
 * destroy the pool. If a thread dies, the pool ends and fails all its tasks: Piscina would start
 * another thread, and throw from an event handler if it cannot.
 */
export class WorkerPool {
  readonly #piscina: Piscina;
  /** Rejects each running task. */
  readonly #running = new Set<(reason: unknown) => void>();
  #broken: unknown;
  #destroyed: Promise<void> | undefined;

  private constructor(piscina: Piscina, threads: readonly Worker[]) {
    this.#piscina = piscina;
    for (const thread of threads) {
      // Before Piscina's own listeners.
      thread.prependListener('error', (error) => this.#break(threadDeath(error)));
      thread.prependListener('exit', (code) =>
        this.#break(threadDeath(new Error(`it exited with code ${code}`))),
      );
    }
    // A result that arrives while the pool is being destroyed becomes an error event, which would
    // end the process.
    piscina.on('error', (error) => this.#break(error));
  }

  /**
   * Starts `threads` threads that run up to `tasksPerThread` tasks each.
   * @throws PullError `store-broken` if a thread cannot be started; then all of them are ended
   */
  static async start(options: {
    threads: number;
    tasksPerThread: number;
    setup: WorkerSetup;
    /** Records the stages of these threads. */
    stages?: StageRecorder | undefined;
    onEvent: (event: WorkerEvent) => void;
  }): Promise<WorkerPool> {
    const { Piscina } = await import('piscina');
    const { stages, threads: count } = options;
    const workerData: WorkerSetup =
      stages === undefined ? options.setup : { ...options.setup, stageRows: stages.addThreads(count) };
    const make = () =>
      new Piscina({
        filename: ENTRY.href,
        minThreads: options.threads,
        maxThreads: options.threads,
        concurrentTasksPerWorker: options.tasksPerThread,
        atomics: 'disabled',
        stricterFIFO: true,
        workerData,
        env: workerEnvironment(process.env),
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
      });
    const { piscina, threads } = await startThreads(make);
    piscina.on('message', options.onEvent);
    return new WorkerPool(piscina, threads);
  }

  /**
   * Runs a task and returns its result.
   * @throws PullError with the failure of the task; `store-broken` if a thread of the pool died
   */
  run<T extends Task>(task: T, transfer: readonly MessagePort[] = []): Promise<Results[T['task']]> {
    return new Promise((resolve, reject) => {
      // Piscina would start a new thread for it, which would never end.
      if (this.#destroyed !== undefined) {
        reject(this.#broken ?? new Error('the worker threads have been ended'));
        return;
      }
      const fail = (error: unknown) => {
        this.#running.delete(fail);
        reject(this.#broken ?? error);
      };
      this.#running.add(fail);
      this.#piscina
        .run(task, { transferList: [...transfer] })
        .then((outcome: Outcome<Results[T['task']]>) => {
          this.#running.delete(fail);
          if (outcome.ok) resolve(outcome.value);
          else reject(fromFailure(outcome.failure));
        }, fail);
    });
  }

  /** Ends the threads at once, with their tasks. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.#piscina.destroy();
    return this.#destroyed;
  }

  #break(reason: unknown): void {
    if (this.#destroyed !== undefined) return;
    this.#broken = reason;
    for (const fail of this.#running) fail(reason);
    // From here on, Piscina starts no thread, and does not wait for one that has ended.
    void this.#piscina.close({ force: true });
    this.#destroyed = Promise.resolve().then(() => this.#piscina.destroy());
  }
}

/** Runs tasks. */
export type TaskRunner = Pick<WorkerPool, 'run'>;

/**
 * Returns a runner that gives each task to the pool with the fewest running tasks for each thread,
 * of several the first.
 */
export function shareTasks(
  pools: ReadonlyArray<{ readonly pool: TaskRunner; readonly threads: number }>,
): TaskRunner {
  const shares = pools.map(({ pool, threads }) => ({ pool, threads, running: 0 }));
  return {
    async run(task, transfer) {
      const share = shares.reduce((a, b) => (b.running / b.threads < a.running / a.threads ? b : a));
      share.running += 1;
      try {
        return await share.pool.run(task, transfer);
      } finally {
        share.running -= 1;
      }
    },
  };
}

/**
 * Makes a pool and returns its threads. If one cannot be started, the constructor of the pool
 * throws and leaves the others running: they are found by Node's `worker` events, which it emits in
 * order on the tick queue.
 * @throws PullError `store-broken`, after all threads have ended
 */
async function startThreads(make: () => Piscina): Promise<{ piscina: Piscina; threads: Worker[] }> {
  const threads: Worker[] = [];
  const add = (thread: Worker) => threads.push(thread);
  process.nextTick(() => process.on('worker', add));
  let piscina: Piscina | undefined;
  let failure: unknown;
  try {
    piscina = make();
  } catch (error) {
    failure = error;
  }
  await new Promise<void>((resolve) =>
    process.nextTick(() => {
      process.off('worker', add);
      resolve();
    }),
  );
  if (piscina !== undefined) return { piscina, threads };
  await Promise.all(
    threads.map((thread) => {
      // The listeners of the failed pool would start more threads.
      for (const event of ['error', 'exit']) thread.removeAllListeners(event);
      thread.on('error', () => {});
      return thread.terminate();
    }),
  );
  throw startFailure(failure);
}

/** Returns why a thread could not be started; for EAGAIN, with the limit in the hint. */
function startFailure(error: unknown): unknown {
  const failure = asOutOfResources(error);
  if (!(failure instanceof PullError) || !failure.message.includes('EAGAIN')) return failure;
  return new PullError(failure.code, failure.message, { hint: threadLimitHint(), cause: error });
}

/** Returns the failure for a thread that died. */
function threadDeath(error: Error): unknown {
  const failure = asOutOfResources(error);
  if (failure instanceof PullError) return failure;
  return new PullError('store-broken', `a worker thread died: ${error.message}`, {
    hint: 'Run the same command again: it goes on from here. If this comes again, run it with --debug and report what it shows.',
    cause: error,
  });
}

/** Other threads may have ended since the refusal. */
const MARGIN_THREADS = 8;
/** A Node thread reserves a stack of 4 MB, and address space for its heap. */
const MARGIN_KIB = 64 * 1024;

/**
 * Returns a hint with the limit that prevents this process from starting a thread: pids.max of its
 * cgroup (kernel documentation, cgroup-v2, "PID"; cgroup-v1, pids.txt), its address space, or the
 * processes of its user (getrlimit(2)). The system only reports EAGAIN.
 */
function threadLimitHint(): string {
  const pidsMax = smallestPidsMax();
  if (pidsMax !== undefined) {
    return `Raise the limit of processes and threads of the container, pids.max, which is ${pidsMax} (docker run --pids-limit).`;
  }
  const limits = readIfReadable('/proc/self/limits');
  const softLimit = (name: string) => Number(new RegExp(`^${name} +([0-9]+) `, 'm').exec(limits)?.[1]);
  const usedKiB = Number(/^VmSize:\s+([0-9]+) kB$/m.exec(readIfReadable('/proc/self/status'))?.[1]);
  if ((usedKiB + MARGIN_KIB) * 1024 > softLimit('Max address space')) {
    return 'Raise the limit of address space (ulimit -v): there is no room in it for the stack of a thread.';
  }
  const processes = softLimit('Max processes');
  const now = Number.isNaN(processes) ? '' : `, which is ${processes}`;
  return `Raise the limit of processes and threads of this user (ulimit -u${now}), or end other programs.`;
}

/** Returns the exhausted limit of the cgroup or an ancestor; undefined if there is none. */
function smallestPidsMax(): number | undefined {
  for (const group of cgroupPaths(/^(?:0:|[0-9]+:pids):(.*)$/m)) {
    for (const root of ['/sys/fs/cgroup', '/sys/fs/cgroup/pids']) {
      const directory = posix.join(root, group);
      const [max, current] = ['pids.max', 'pids.current'].map((name) =>
        Number.parseInt(readIfReadable(posix.join(directory, name)), 10),
      );
      if (current! + MARGIN_THREADS > max!) return max;
    }
  }
  return undefined;
}
