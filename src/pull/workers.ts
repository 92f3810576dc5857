import { BroadcastChannel } from 'node:worker_threads';
import { PullError, toFailure } from '../format/error.js';
import { usableMemoryBytes } from '../pool/cores.js';
import type { LayerFollower, MainMessage, NetworkSetup, WorkerEvent, WorkerSetup } from '../pool/messages.js';
import { shareTasks, type TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import { EndpointChoice } from '../registry/endpoint-state.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { removePack, sealPack } from '../store/pack-files.js';
import type { StorePaths } from '../store/paths.js';
import { DecodedAllowance, MetadataBudget, supportThreads } from './budgets.js';
import type { PullContext } from './pull-context.js';
import type { PullEvent } from './pull-events.js';
import type { PullSession } from './pull-session.js';
import type { KarmaRetryPolicy } from './retry-policy.js';

/**
 * Threads that fetch, up to which the support threads are among them. With two workers that saves a
 * thread: 7 % of CPU time and 30 MB. With eight, a thread that hashes and fetches is busy half as
 * long again as one that hashes, and the layer waits for it (`docs/scaling.md`).
 */
const MAX_SHARED_THREADS = 2;

/**
 * Tasks that one support thread interleaves besides hashing and decoding layers: metadata, inline
 * bytes, repairs.
 */
const OTHER_SUPPORT_TASKS = 4;

interface Options {
  readonly session: PullSession;
  readonly paths: StorePaths;
  readonly layers: number;
  /** Blob sizes of the opaque layers. */
  readonly streamBytes: readonly number[];
  readonly emit: (event: PullEvent) => void;
  /** As `NetworkSetup` has it. */
  readonly reusesBuffers?: boolean;
  readonly follower?: LayerFollower | undefined;
}

/** The threads of one pull or copy. */
export class Workers {
  readonly context: PullContext;
  readonly #events: WorkerEvents;
  readonly #pools: WorkerPool[] = [];
  #closing: Promise<void> | undefined;

  /**
   * Starts the support threads. Threads that fetch start when it is known how much there is to
   * fetch.
   */
  static async start(options: Options): Promise<Workers> {
    warnOfSmallPool(process.env);
    const { session, paths, layers, streamBytes, emit, follower, reusesBuffers = false } = options;
    const network = { ...(await session.network()), reusesBuffers };
    const { registry, retries } = session;
    const { workers, connections } = session.settings;
    const spare = follower?.makeRoom && { spareRoom: new Int32Array(new SharedArrayBuffer(4)) };
    const setup = { storeRoot: paths.root, isReadOnly: paths.isReadOnly, ...spare, ...session.setup };
    const memoryBytes = usableMemoryBytes();
    const threads = supportThreads({ workers, connections, memoryBytes, layers, streamBytes });
    const layerTasks = layers + streamBytes.length;
    const onFullStore = async () => {
      if (spare === undefined) return;
      await follower?.makeRoom?.();
      Atomics.store(spare.spareRoom, 0, 1);
      Atomics.notify(spare.spareRoom, 0);
    };
    const { channel } = network;
    const events = new WorkerEvents({ channel, session: registry, retries, emit, onFullStore });
    try {
      const support = await WorkerPool.start({
        threads,
        tasksPerThread:
          Math.ceil(layerTasks / threads) + OTHER_SUPPORT_TASKS + Math.ceil(connections / threads),
        setup: { ...setup, network: { ...network, connections: Math.floor(connections / threads) } },
        stages: session.stages,
        onEvent: events.handle,
      });
      return new Workers(options, { ...setup, network }, events, { pool: support, threads });
    } catch (error) {
      events.close();
      throw error;
    }
  }

  private constructor(
    { session, paths, emit, follower }: Options,
    setup: WorkerSetup & { readonly network: NetworkSetup },
    events: WorkerEvents,
    support: { readonly pool: WorkerPool; readonly threads: number },
  ) {
    const { settings, stop, retries, concurrency, progress, stages } = session;
    const { network } = setup;
    this.#events = events;
    this.#pools.push(support.pool);
    const startFetchers = async (all: number, mayShare: boolean): Promise<TaskRunner> => {
      const isShared = mayShare && all >= support.threads && all <= MAX_SHARED_THREADS;
      const threads = isShared ? all - support.threads : all;
      if (threads === 0) return support.pool;
      const pool = await WorkerPool.start({
        threads,
        tasksPerThread: Math.ceil(settings.connections / threads),
        setup: { ...setup, network: { ...network, connections: Math.ceil(settings.connections / threads) } },
        stages,
        onEvent: events.handle,
      });
      this.#pools.push(pool);
      if (this.#closing !== undefined) await pool.destroy();
      return isShared ? shareTasks([{ pool, threads }, support]) : pool;
    };
    this.context = {
      settings,
      paths,
      stop,
      retries,
      concurrency,
      endpoints: new EndpointChoice(network.endpoints.length, network.endpointState, network.limits),
      metadata: new MetadataBudget(),
      decoded: new DecodedAllowance(),
      scrap: new Set(),
      failed: new Set(),
      emit,
      addTotal: (bytes, diffId) => progress.addTotal(bytes, diffId),
      layers: progress.layers,
      support: support.pool,
      startFetchers,
      packs: new Set(),
      stages,
      follower,
    };
    stop.onStop(() => void this.close());
  }

  /**
   * Ends the threads and seals the packs they wrote: no more is written to them, and all is on
   * disk.
   */
  async seal(): Promise<void> {
    await this.close();
    const { paths, packs, stages } = this.context;
    await stages.clock.during('sync', 'wait', async () => {
      for (const pack of packs) await sealPack(paths, pack);
    });
  }

  /**
   * Ends the threads at once, tasks in progress included, and deletes the packs in `scrap`. Every
   * call resolves when all threads have ended.
   */
  close(): Promise<void> {
    this.#events.close();
    this.#closing ??= Promise.all(this.#pools.map((pool) => pool.destroy())).then(() => this.#removeScrap());
    return this.#closing;
  }

  async #removeScrap(): Promise<void> {
    const { paths, packs, scrap } = this.context;
    for (const pack of scrap) packs.delete(pack);
    try {
      for (const pack of scrap) await removePack(paths, pack);
    } catch (error) {
      // The reason that ended the pull counts. Prune deletes what stays.
      if (!(error instanceof PullError)) throw error;
    }
  }
}

let isPoolKnown = false;

/**
 * Warns once that decoding has the four threads of libuv's pool: its size is fixed when the process
 * starts, by the command or the program that embeds the library. Setting the variable, to 4 for example,
 * turns the warning off, as does `--disable-warning` with its code.
 */
function warnOfSmallPool(env: NodeJS.ProcessEnv): void {
  if (isPoolKnown || env['UV_THREADPOOL_SIZE']) return;
  isPoolKnown = true;
  process.emitWarning("decoding has the four threads of libuv's pool", {
    type: 'ZpullWarning',
    code: 'ZPULL_THREADPOOL',
    detail: 'Start the process with UV_THREADPOOL_SIZE set to the number of cores plus 4.',
  });
}

interface EventOptions {
  readonly channel: string;
  readonly session: MirroredSession;
  readonly retries: KarmaRetryPolicy;
  readonly emit: (event: PullEvent) => void;
  readonly onFullStore: () => void;
}

/**
 * Handles the events of running tasks: passes failures to the retry policy, and renews stale tokens
 * and expired targets once for all workers.
 */
export class WorkerEvents {
  readonly #options: EventOptions;
  readonly #channel: BroadcastChannel;
  readonly #targets = new TargetRenewals((message) => this.#post(message));
  #closed = false;

  constructor(options: EventOptions) {
    this.#options = options;
    this.#channel = new BroadcastChannel(options.channel);
  }

  readonly handle = (event: WorkerEvent): void => {
    // The debug line of a failed request can arrive after the failure, by another port.
    if (this.#closed && event.event !== 'request') return;
    const { retries, emit, onFullStore } = this.#options;
    switch (event.event) {
      case 'miss':
        if (retries.missed(event)) emit({ event: 'miss', message: event.message });
        break;
      case 'requesting':
        retries.countRequests(event.change);
        break;
      case 'throttled':
        retries.throttled(event);
        break;
      case 'authorization':
        void this.#refresh(event.stale, event.endpoint);
        break;
      case 'target-expired':
        this.#targets.expired(event);
        break;
      case 'target-renewed':
        this.#targets.renewed(event.blobUrl, event.target);
        break;
      case 'target-failed':
        this.#targets.failed(event.blobUrl, event.target);
        break;
      case 'store-full':
        onFullStore();
        break;
      case 'request':
        emit({ event: 'debug', line: event.line });
        break;
    }
  };

  /** Ignores all later events except debug lines. */
  close(): void {
    this.#closed = true;
    this.#channel.close();
  }

  readonly #post = (message: MainMessage): void => {
    if (!this.#closed) this.#channel.postMessage(message);
  };

  async #refresh(stale: string, endpoint: number): Promise<void> {
    try {
      const access = await this.#options.session.access(endpoint, stale);
      this.#post({ message: 'authorization', endpoint, stale, ...access });
    } catch (error) {
      this.#post({ message: 'authorization-failed', endpoint, stale, failure: toFailure(error) });
    }
  }
}

interface Blob {
  /** The latest known target of a redirect. */
  latest: string | undefined;
  /** Threads that wait for the request of another one; undefined while there is none. */
  waiting: number[] | undefined;
}

/**
 * Lets one thread request a blob's redirect target from the registry, at first and when a signed
 * URL has expired, and sends its answer to all. Threads with different targets change to the latest
 * one.
 */
export class TargetRenewals {
  readonly #blobs = new Map<string, Blob>();
  readonly #post: (message: MainMessage) => void;

  constructor(post: (message: MainMessage) => void) {
    this.#post = post;
  }

  /**
   * A thread's target has expired, or it has none. It gets one answer: the latest target,
   * permission to request one, or what another thread receives, which may be the same target again.
   */
  expired(expired: { blobUrl: string; target: string | undefined; thread: number }): void {
    const { blobUrl, target, thread } = expired;
    const blob = this.#blob(blobUrl);
    if (blob.waiting !== undefined) {
      blob.waiting.push(thread);
      return;
    }
    if (blob.latest !== undefined && blob.latest !== target) {
      this.#post({ message: 'target', blobUrl, target: blob.latest, thread });
      return;
    }
    blob.waiting = [];
    this.#post({ message: 'renew-target', blobUrl, thread });
  }

  /**
   * The thread with permission has received a target, or none: then each thread requests its own.
   */
  renewed(blobUrl: string, target: string | undefined): void {
    const { waiting = [] } = this.#blob(blobUrl);
    this.#blobs.set(blobUrl, { latest: target, waiting: undefined });
    for (const thread of waiting) this.#post({ message: 'target', blobUrl, target, thread });
  }

  /** A target does not work; no thread is sent there any more. */
  failed(blobUrl: string, target: string): void {
    const blob = this.#blob(blobUrl);
    if (blob.latest === target) blob.latest = undefined;
  }

  #blob(blobUrl: string): Blob {
    const blob = this.#blobs.get(blobUrl) ?? { latest: undefined, waiting: undefined };
    this.#blobs.set(blobUrl, blob);
    return blob;
  }
}
