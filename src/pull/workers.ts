import { PullError } from '../format/error.js';
import { usableMemoryBytes } from '../pool/cores.js';
import type { LayerFollower } from '../pool/layer-follower.js';
import type { NetworkSetup, WorkerSetup } from '../pool/messages.js';
import { shareTasks, type TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import { EndpointChoice } from '../registry/endpoint-choice.js';
import { removePack, sealPack } from '../store/pack-sync.js';
import type { PackId, StorePaths } from '../store/paths.js';
import { DecodedAllowance, MetadataBudget } from './budgets.js';
import type { PullContext } from './pull-context.js';
import type { PullEvent } from './pull-events.js';
import type { PullSession } from './pull-session.js';
import { supportThreads } from './thread-counts.js';
import { WorkerEvents } from './worker-events.js';

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
    const { session, paths, layers, streamBytes, emit, follower, reusesBuffers = false } = options;
    const network = { ...(await session.network()), reusesBuffers };
    const { registry, retries } = session;
    const { workers, connections } = session.settings;
    const spare = follower?.makeRoom && { spareRoom: new Int32Array(new SharedArrayBuffer(4)) };
    const setup = { storeRoot: paths.root, isReadOnly: paths.isReadOnly, ...spare, ...session.setup };
    const threads = supportThreads({
      workers,
      connections,
      memoryBytes: usableMemoryBytes(),
      layers,
      streamBytes,
    });
    const layerTasks = layers + streamBytes.length;
    const onFullStore = async () => {
      if (spare === undefined) return;
      await follower?.makeRoom?.();
      Atomics.store(spare.spareRoom, 0, 1);
      Atomics.notify(spare.spareRoom, 0);
    };
    const events = new WorkerEvents({
      channel: network.channel,
      session: registry,
      retries,
      emit,
      onFullStore,
    });
    try {
      const support = await WorkerPool.start({
        threads,
        tasksPerThread:
          Math.ceil(layerTasks / threads) + OTHER_SUPPORT_TASKS + Math.ceil(connections / threads),
        setup: { ...setup, network: { ...network, connections: Math.floor(connections / threads) } },
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
    const { settings, stop, retries, concurrency, progress } = session;
    const { network } = setup;
    this.#events = events;
    this.#pools.push(support.pool);
    const startFetchers = async (all: number, mayShare: boolean): Promise<TaskRunner> => {
      const isShared = mayShare && all >= support.threads;
      const threads = isShared ? all - support.threads : all;
      if (threads === 0) return support.pool;
      const pool = await WorkerPool.start({
        threads,
        tasksPerThread: Math.ceil(settings.connections / threads),
        setup: { ...setup, network: { ...network, connections: Math.ceil(settings.connections / threads) } },
        onEvent: events.handle,
      });
      this.#pools.push(pool);
      if (this.#closing !== undefined) await pool.destroy();
      return isShared ? shareTasks([{ pool, threads }, support]) : pool;
    };
    const packs = new Set<PackId>();
    const endpoints = new EndpointChoice(network.endpoints.length, network.endpointState, network.limits);
    this.context = {
      settings,
      paths,
      stop,
      retries,
      concurrency,
      endpoints,
      metadata: new MetadataBudget(),
      decoded: new DecodedAllowance(),
      scrap: new Set(),
      failed: new Set(),
      emit,
      addTotal: (bytes) => progress.addTotal(bytes),
      support: support.pool,
      startFetchers,
      packs,
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
    const { paths, packs } = this.context;
    for (const pack of packs) await sealPack(paths, pack);
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
