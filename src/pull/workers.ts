import { BroadcastChannel } from 'node:worker_threads';
import { PullError, toFailure } from '../format/error.js';
import { usableMemoryBytes } from '../pool/cores.js';
import type { LayerFollower } from '../pool/layer-follower.js';
import type { MainMessage, NetworkSetup, WorkerEvent, WorkerSetup } from '../pool/messages.js';
import { shareTasks, type TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import { EndpointChoice } from '../registry/endpoint-choice.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { removePack, sealPack } from '../store/pack-sync.js';
import type { PackId, StorePaths } from '../store/paths.js';
import { DecodedAllowance, MetadataBudget } from './budgets.js';
import type { MissingLayer } from './layer.js';
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
      const isShared = mayShare && all >= support.threads && all <= MAX_SHARED_THREADS;
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

/**
 * Support threads for metadata, look-ups and hashes of chunked layers: one hashes 1.7 GB/s, faster
 * than most networks.
 */
const MAX_SHARED_SUPPORT_THREADS = 4;

/**
 * An opaque layer has work for two threads: one hashes the blob, walks the tar and writes, the
 * other hashes the tar. libuv's pool decodes.
 */
const THREADS_PER_STREAM = 2;

/** A thread costs 25 MB and 30 ms of CPU time to start, as much as decoding 8 MiB of gzip. */
const MIN_STREAM_BYTES_PER_THREAD = 8 * 2 ** 20;

/** A pull that fetches less uses one worker: one small pack instead of several tiny ones. */
const ONE_WORKER_BYTES = 8 * 2 ** 20;

/**
 * A thread that only writes what it receives keeps this many decoders busy: it writes 1 GB/s, and
 * each decodes 0.2.
 */
const DECODERS_PER_FETCHER = 4;

/** On one core, libuv's pool decodes one opaque layer while the other one is hashed. */
const MIN_STREAMS = 2;

/**
 * The share of memory for all opaque layers, and an estimate for each: two threads and 20 MB.
 * Frames of zeros, which decode to 32 MiB at once, take up to twice as much.
 */
const STREAMS_MEMORY_SHARE = 1 / 4;
const STREAM_BYTES = 64 * 2 ** 20;

interface Demand {
  readonly workers: number;
  readonly connections: number;
  readonly memoryBytes: number;
  readonly layers: number;
  /** Blob sizes of the opaque layers. */
  readonly streamBytes: readonly number[];
}

/**
 * The number of support threads of a pull. They decode and hash opaque layers, which get up to a
 * thread a worker. Chunked layers are decoded by the threads that fetch them.
 */
export function supportThreads({ workers, connections, memoryBytes, layers, streamBytes }: Demand): number {
  const shared = Math.min(MAX_SHARED_SUPPORT_THREADS, Math.floor(workers / 2), layers);
  const forStreams = Math.min(
    streamBytes.length === layers ? workers : Math.floor(workers / 2),
    Math.min(streamBytes.length, streamsAtATime(workers, memoryBytes)) * THREADS_PER_STREAM,
    Math.ceil(streamBytes.reduce((sum, bytes) => sum + bytes, 0) / MIN_STREAM_BYTES_PER_THREAD),
  );
  return Math.max(1, Math.min(connections, Math.max(shared, forStreams)));
}

/**
 * Blob sizes of the layers that are opaque by their descriptors. A zstd blob without annotations
 * may have a footer that leads to a table of contents; hardly any has.
 */
export function likelyStreamBytes(layers: ReadonlyArray<Pick<MissingLayer, 'blob' | 'place'>>): number[] {
  return layers
    .filter(({ place }) => place === undefined || (place.by === 'footer' && place.compression === 'zstd'))
    .map(({ blob }) => blob.sizeBytes);
}

/**
 * The number of threads that fetch `fetchBytes` bytes. Where all layers are opaque, they decode
 * nothing.
 */
export function fetchThreads(workers: number, fetchBytes: number, areOpaque: boolean): number {
  if (fetchBytes < ONE_WORKER_BYTES) return 1;
  return areOpaque ? Math.ceil(workers / DECODERS_PER_FETCHER) : workers;
}

/**
 * The number of threads that fetch a copy of `fetchBytes` bytes, and whether support threads may be
 * among them. Half of the workers fetch and the others hash: on two cores a thread that fetches
 * keeps up with one that hashes, and a second one costs 0.5 s of CPU time and 15 MB more for a copy
 * of 800 MB.
 */
export function copyThreads(
  workers: number,
  fetchBytes: number,
): { readonly threads: number; readonly mayShare: boolean } {
  const isSmall = fetchBytes < ONE_WORKER_BYTES;
  return { threads: isSmall ? 1 : Math.ceil(workers / 2), mayShare: isSmall || workers === 1 };
}

/**
 * How many opaque layers are decoded at a time: one a worker, as each keeps more than a core busy,
 * and within memory.
 */
export function streamsAtATime(workers: number, memoryBytes: number): number {
  const fitting = Math.floor((memoryBytes * STREAMS_MEMORY_SHARE) / STREAM_BYTES);
  return Math.max(MIN_STREAMS, Math.min(workers, fitting));
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
  expired({
    blobUrl,
    target,
    thread,
  }: {
    blobUrl: string;
    target: string | undefined;
    thread: number;
  }): void {
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

/**
 * Handles the events of running tasks: passes failures to the retry policy, and renews stale tokens
 * and expired targets once for all workers.
 */
export class WorkerEvents {
  readonly #channel: BroadcastChannel;
  readonly #session: MirroredSession;
  readonly #retries: KarmaRetryPolicy;
  readonly #emit: (event: PullEvent) => void;
  readonly #onFullStore: () => void;
  readonly #targets = new TargetRenewals((message) => this.#post(message));
  #closed = false;

  constructor(options: {
    channel: string;
    session: MirroredSession;
    retries: KarmaRetryPolicy;
    emit: (event: PullEvent) => void;
    onFullStore: () => void;
  }) {
    this.#channel = new BroadcastChannel(options.channel);
    this.#session = options.session;
    this.#retries = options.retries;
    this.#emit = options.emit;
    this.#onFullStore = options.onFullStore;
  }

  readonly handle = (event: WorkerEvent): void => {
    // The debug line of a failed request can arrive after the failure, by another port.
    if (this.#closed && event.event !== 'request') return;
    switch (event.event) {
      case 'miss':
        if (this.#retries.missed(event)) this.#emit({ event: 'miss', message: event.message });
        break;
      case 'asking':
        this.#retries.countRequests(event.change);
        break;
      case 'throttled':
        this.#retries.throttled(event);
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
        this.#onFullStore();
        break;
      case 'request':
        this.#emit({ event: 'debug', line: event.line });
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
      this.#post({
        message: 'authorization',
        endpoint,
        stale,
        ...(await this.#session.access(endpoint, stale)),
      });
    } catch (error) {
      this.#post({ message: 'authorization-failed', endpoint, stale, failure: toFailure(error) });
    }
  }
}
