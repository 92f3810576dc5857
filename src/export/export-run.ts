import { outsideStore } from '../files/storage-error.js';
import { onAbort, throwIfAborted } from '../format/abort.js';
import { type Digest, parseDigest } from '../format/digest.js';
import { type ErrorCode, guardListener, PullError } from '../format/error.js';
import { formatBytes } from '../format/figures.js';
import { usableCores } from '../pool/cores.js';
import type { BlockTagRows, ExportedLayer, WorkerSetup } from '../pool/messages.js';
import { CounterReader, createCounters } from '../pool/shared-memory.js';
import { StageRecorder } from '../pool/stages.js';
import { WorkerPool } from '../pool/worker-pool.js';
import type { ExtentRows } from '../store/extents.js';
import { readLayerRecord } from '../store/layer-record.js';
import { withLease } from '../store/leases.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { changedLayer, createBlockTags, createPartRecords } from './block-tags.js';

/** Limit of the threads of an export: more of them wait for the disk, not for a core. */
const MAX_THREADS = 4;

/** The message when a signal ends an export. */
export const INTERRUPTED = 'the export was interrupted';

/** Interval of `written` events: a display does not need more than ten a second. */
const TICK_MS = 100;

const MALFORMED_CODES: readonly ErrorCode[] = ['metadata-malformed', 'unsupported'];

/** The options that all exports have. */
export interface ExportOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** DiffIDs of the layers, lowest first. */
  readonly diffIds: readonly string[];
  /**
   * An abort ends the export at once, and nothing unfinished stays. The error is the reason if it is
   * a PullError, otherwise `interrupted` with the reason as its cause.
   */
  readonly signal?: AbortSignal;
  /** Records the stages of the export, and of other calls with the same recorder. */
  readonly stages?: StageRecorder;
  readonly onEvent?: (event: ExportEvent) => void;
}

/** An event of a running export, for a display. Sizes in bytes. */
export type ExportEvent =
  /** The total to write is known. */
  | { readonly event: 'exporting'; readonly destination: string; readonly totalBytes: number }
  /** About ten times a second. */
  | { readonly event: 'written'; readonly writtenBytes: number; readonly totalBytes: number }
  | { readonly event: 'warning'; readonly message: string };

/** What a running export works with. */
export interface ExportRun {
  readonly pool: WorkerPool;
  /** Lowest first; the same layer may occur twice. */
  readonly layers: readonly StoredLayer[];
  readonly emit: (event: ExportEvent) => void;
  readonly stages: StageRecorder;
  /** Starts the progress events; see `ExportProgress.begin`. */
  begin(destination: string, totalBytes: number, isAnnounced?: boolean): void;
}

/** The run of an export that reads the layers as file systems. */
export interface FilesRun extends ExportRun {
  /**
   * Hashes every layer, in parallel with the other tasks; further calls return the same promise.
   * Once it resolves, every byte of a layer that a thread has read or will read is the one that was
   * hashed, or the task of that thread fails.
   * @throws PullError `digest-mismatch` when bytes are missing, do not hash to the DiffID, or
   *   differ from what another thread read before
   */
  prove(): Promise<void>;
  /** As `prove`, recorded as waiting for it. */
  proven(): Promise<void>;
  /** Layers to pass with each task, for threads that were started before the layers were known. */
  readonly given: { readonly layers?: readonly ExportedLayer[] };
}

/**
 * Runs `work` with the layers of an image and threads to read them. An abort ends the threads at
 * once.
 * @throws PullError `store-broken` when a layer is missing from the store; what `work` throws; the
 *   reason of the abort
 */
export function withExport<T>(
  options: ExportOptions,
  work: (run: ExportRun) => Promise<T>,
  threads = exportThreads(),
): Promise<T> {
  const paths = openStore(options.store);
  return withLease(paths, 'export', () => {
    const layers = readStoredLayers(paths, options.diffIds);
    return withThreads({ paths, layers, options, threads }, work);
  });
}

/**
 * Same as `withExport`, for tasks that read layers as file systems and need their proof. Layers
 * that `followed` has proven are not hashed again.
 * @throws PullError as `withExport`; `digest-mismatch` instead of an error that damaged bytes
 *   cause; `unsupported` beyond 16 TiB
 */
export function withFilesExport<T>(
  options: ExportOptions & { readonly followed?: FollowedLayers | undefined },
  work: (run: FilesRun) => Promise<T>,
): Promise<T> {
  const paths = openStore(options.store);
  const { followed } = options;
  return withLease(paths, 'export', () => {
    const layers = tagLayers(readStoredLayers(paths, options.diffIds), followed?.tags);
    const unproven = layers.filter(({ diffId }) => followed?.proven.has(diffId) !== true);
    const given = followed?.pool && { layers };
    return withThreads({ paths, layers, files: layers, options, followed }, async (run) => {
      let proof: Promise<void> | undefined;
      const prove = () => {
        proof ??= proveLayers(run, unproven);
        proof.catch(() => {}); // callers of `prove` get it
        return proof;
      };
      const proven = () => run.stages.clock.during('prove', 'wait', prove);
      try {
        return await work({ ...run, prove, proven, given: given ?? {} });
      } catch (error) {
        throwIfAborted(options.signal, INTERRUPTED);
        // Damaged bytes may be the cause of a malformed header: `prove` throws if they are.
        if (error instanceof PullError && MALFORMED_CODES.includes(error.code)) await prove();
        throw error;
      }
    });
  });
}

async function withThreads<T>(
  given: {
    readonly paths: StorePaths;
    readonly layers: readonly StoredLayer[];
    readonly files?: readonly TaggedLayer[];
    readonly options: ExportOptions;
    readonly threads?: number;
    readonly followed?: FollowedLayers | undefined;
  },
  work: (run: ExportRun) => Promise<T>,
): Promise<T> {
  const { paths, layers, files, followed, threads = exportThreads() } = given;
  const { signal, stages = new StageRecorder() } = given.options;
  throwIfAborted(signal, INTERRUPTED);
  stages.set({ workers: threads, connections: 0, limitRate: undefined, patienceMs: 0 });
  const counters = createCounters();
  const setup = { storeRoot: paths.root, counters, ...(files && { layers: files }) };
  const pool = followed?.pool ?? (await startExportPool(threads, setup, stages));
  const abort = () => void pool.destroy();
  const removeAbort = onAbort(signal, abort);
  let thrown: Error | undefined;
  const emit = guardListener(given.options.onEvent, (error) => {
    thrown = error;
    abort();
  });
  const progress = new ExportProgress(followed?.written ?? new CounterReader(counters, 'written'), emit);
  let result: T;
  try {
    result = await work({ pool, layers, emit, stages, begin: progress.begin });
    progress.report();
  } catch (error) {
    throwIfAborted(signal, INTERRUPTED);
    throw thrown ?? outsideStore(error, paths.root);
  } finally {
    progress.close();
    removeAbort();
    await pool.destroy();
  }
  // By now, a promise that the last call of the listener returned has been rejected.
  if (thrown !== undefined) throw thrown;
  return result;
}

/** Returns the number of threads of an export. */
export function exportThreads(): number {
  return Math.max(1, Math.min(MAX_THREADS, usableCores()));
}

/** Starts threads for the tasks of an export. @throws PullError as `WorkerPool.start` */
export function startExportPool(
  threads: number,
  setup: WorkerSetup,
  stages: StageRecorder | undefined,
): Promise<WorkerPool> {
  return WorkerPool.start({ threads, tasksPerThread: 1, setup, stages, onEvent: () => {} });
}

/** Emits regular events from the counter of bytes that the threads have written. */
export class ExportProgress {
  readonly #written: CounterReader;
  readonly #onEvent: (event: ExportEvent) => void;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;

  constructor(written: CounterReader, onEvent: (event: ExportEvent) => void) {
    this.#written = written;
    this.#onEvent = onEvent;
  }

  /** Emits `exporting`, unless an earlier run did (`isAnnounced`), then `written` at each tick. */
  readonly begin = (destination: string, totalBytes: number, isAnnounced = false): void => {
    this.#totalBytes = totalBytes;
    if (!isAnnounced) this.#onEvent({ event: 'exporting', destination, totalBytes });
    this.#timer = setInterval(() => this.report(), TICK_MS).unref();
  };

  report(): void {
    const totalBytes = this.#totalBytes;
    const writtenBytes = Math.min(totalBytes, this.#written.total());
    this.#onEvent({ event: 'written', writtenBytes, totalBytes });
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Limit of the tars of all layers of one file system. Their tags take 48 bytes a MiB. It exceeds
 * every image and most disks.
 */
const MAX_FILES_TAR_BYTES = 2 ** 44;

/** A layer as its record in the store describes it. */
export interface StoredLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tarBytes: number;
}

/** A layer with tags, which show that all threads read the same bytes of it. */
type TaggedLayer = StoredLayer & ExportedLayer;

/** Tags and proofs of layers that were read before the export. */
export interface FollowedLayers {
  /** Threads for the export to use and to end. */
  readonly pool?: WorkerPool;
  /** Bytes that these threads have written. */
  readonly written?: CounterReader;
  readonly tags: ReadonlyMap<Digest, BlockTagRows>;
  /** Layers that were hashed: the tags of all their blocks are those of the hashed bytes. */
  readonly proven: ReadonlySet<Digest>;
}

/** @throws PullError `store-broken` when a layer is missing from the store */
function readStoredLayers(paths: StorePaths, diffIds: readonly string[]): StoredLayer[] {
  const known = new Map<string, StoredLayer>();
  return diffIds.map((diffId) => {
    const layer = known.get(diffId) ?? readStoredLayer(paths, parseDigest(diffId, 'DiffID'));
    known.set(diffId, layer);
    return layer;
  });
}

function readStoredLayer(paths: StorePaths, diffId: Digest): StoredLayer {
  const record = readLayerRecord(paths, diffId);
  if (record === undefined) {
    throw new PullError('store-broken', `layer ${diffId} is not in the store ${paths.root} any more`, {
      layer: diffId,
      hint: 'pull the image again',
    });
  }
  return { diffId, extents: record.extents.toRows(), tarBytes: record.extents.lengthBytes };
}

/**
 * Adds tags to layers, those in `known` or new ones; a layer that occurs twice has the same tags.
 * @throws PullError `unsupported` beyond 16 TiB
 */
function tagLayers(layers: readonly StoredLayer[], known?: FollowedLayers['tags']): TaggedLayer[] {
  const each = distinct(layers);
  const tarBytes = totalTarBytes(each);
  if (tarBytes > MAX_FILES_TAR_BYTES) {
    throw new PullError(
      'unsupported',
      `the tars of the layers have ${formatBytes(tarBytes)}: more than 16 TiB`,
      {
        hint: 'export the layers as they are, with layers:DIR',
      },
    );
  }
  const records = createPartRecords();
  const tagged = new Map(
    each.map((layer) => {
      const tags = known?.get(layer.diffId) ?? createBlockTags(layer.tarBytes, records);
      return [layer.diffId, { ...layer, tags }];
    }),
  );
  return layers.map(({ diffId }) => tagged.get(diffId)!);
}

/** Returns each layer once, in the order of first occurrence. */
export function distinct<L extends StoredLayer>(layers: readonly L[]): L[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

/** Returns the total size of the layers' tars, in bytes. */
export function totalTarBytes(layers: readonly StoredLayer[]): number {
  return layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
}

/** @throws PullError `digest-mismatch` for a layer that is damaged or changed since it was read */
async function proveLayers(
  { pool, stages }: Pick<ExportRun, 'pool' | 'stages'>,
  layers: readonly TaggedLayer[],
): Promise<void> {
  const each = distinct(layers).sort((a, b) => b.tarBytes - a.tarBytes);
  await Promise.all(each.map((layer) => proveLayer(pool, layer)));
  stages.clock.addBytes('prove', totalTarBytes(each));
}

async function proveLayer(pool: WorkerPool, { diffId, extents, tags }: TaggedLayer): Promise<void> {
  const { isIntact, changed, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents, tags });
  if (!isIntact) throw damaged(diffId, falsePaths);
  if (changed) throw changedLayer(diffId);
}

/**
 * Returns the error for a layer that did not hash to its DiffID. Marks the damaged contents, so
 * that the next pull fetches them again.
 */
export async function damageOf(pool: WorkerPool, { diffId, extents }: StoredLayer): Promise<PullError> {
  const { falsePaths } = await pool.run({ task: 'check-layer', diffId, extents });
  return damaged(diffId, falsePaths);
}

function damaged(diffId: Digest, falsePaths: readonly string[]): PullError {
  const where = falsePaths.length === 0 ? '' : `, in ${falsePaths[0]}`;
  return new PullError('digest-mismatch', `layer ${diffId} is damaged in the store${where}`, {
    layer: diffId,
    hint: 'run zpull store verify, then pull the image again: only what is damaged is fetched',
  });
}
