import { outsideStore } from '../files/storage-error.js';
import { type Digest, parseDigest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import { guardListener } from '../format/listener.js';
import { usableCores } from '../pool/cores.js';
import { CounterReader, createCounters } from '../pool/counters.js';
import type { BlockTagRows, ExportedLayer, ExtentRows, WorkerSetup } from '../pool/messages.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { readLayerRecord } from '../store/layer-record.js';
import { withLease } from '../store/leases.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { changedLayer, createBlockTags, createPartRecords } from './block-tags.js';
import type { ExportEvent } from './events.js';
import { ExportProgress } from './export-progress.js';
import type { ExportOptions } from './options.js';

/** Threads of an export: more than this wait for the disk, not for a core. */
const MOST_THREADS = 4;

/**
 * Tars of all layers of a file system: their tags take 48 bytes a MiB. No file system that an image is made for, and no disk, has
 * so much.
 */
const MAX_FILES_TAR_BYTES = 2 ** 44;

/** What headers that make no sense are called. */
const SENSELESS: readonly ErrorCode[] = ['metadata-malformed', 'unsupported'];

/** A layer as its record has it. */
export interface StoredLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tarBytes: number;
}

/** One that several threads read, and that none may read differently. */
type TaggedLayer = StoredLayer & ExportedLayer;

/** The tags and proofs of layers that were read before the export. */
export interface FollowedLayers {
  /** Threads that go on with it; they are ended with the export. */
  readonly pool?: WorkerPool;
  /** Bytes that they have written. */
  readonly written?: CounterReader;
  /** The tags that were left meanwhile. */
  readonly tags: ReadonlyMap<Digest, BlockTagRows>;
  /** Layers that were hashed meanwhile, and whose blocks all have the tags of what was hashed. */
  readonly proven: ReadonlySet<Digest>;
}

/** What an export under way works with. */
export interface ExportRun {
  readonly pool: WorkerPool;
  /** Lowest first; the same one may occur twice. */
  readonly layers: readonly StoredLayer[];
  readonly emit: (event: ExportEvent) => void;
  /** Tells how much there is to write, unless that was told before, and from then on how much is written. */
  begin(destination: string, totalBytes: number, wasTold?: boolean): void;
}

/** The same for an export that makes files of the layers. */
export interface FilesRun extends ExportRun {
  /**
   * Hashes every layer, beside whatever else the threads do; once, however often it is called. When it is done, every byte of a layer
   * that a thread has read or will read is the one that was hashed, or that thread's task fails.
   * @throws PullError `digest-mismatch` for bytes that are gone, not their DiffID's, or not what another thread read before
   */
  prove(): Promise<void>;
  /** For the tasks of threads that were started without knowing the layers. */
  readonly given: { readonly layers?: readonly ExportedLayer[] };
}

/**
 * Runs `work` with the layers of an image and threads to read them. An abort ends the threads at once.
 * @throws PullError `store-broken` when a layer is not in the store any more; what `work` throws; the abort's reason
 */
export function withExport<T>(options: ExportOptions, work: (run: ExportRun) => Promise<T>): Promise<T> {
  const paths = openStore(options.store);
  return withLease(paths, 'export', () => {
    const layers = storedLayers(paths, options.diffIds);
    return withThreads({ paths, layers, options }, work);
  });
}

/**
 * The same for the tasks that read layers as files, and with their proof; `followed` need not be proven again.
 * @throws PullError as `withExport`; `digest-mismatch` rather than what damaged bytes look like; `unsupported` beyond 16 TiB
 */
export function withFilesExport<T>(
  options: ExportOptions & { readonly followed?: FollowedLayers | undefined },
  work: (run: FilesRun) => Promise<T>,
): Promise<T> {
  const paths = openStore(options.store);
  const { followed } = options;
  return withLease(paths, 'export', () => {
    const layers = tagLayers(storedLayers(paths, options.diffIds), followed?.tags);
    const unproven = layers.filter(({ diffId }) => followed?.proven.has(diffId) !== true);
    const given = followed?.pool && { layers };
    return withThreads({ paths, layers, files: layers, options, followed }, async (run) => {
      let proof: Promise<void> | undefined;
      const prove = () => {
        proof ??= proveLayers(run.pool, unproven);
        proof.catch(() => {}); // callers of `prove` get it
        return proof;
      };
      try {
        return await work({ ...run, prove, given: given ?? {} });
      } catch (error) {
        options.signal?.throwIfAborted();
        // Bytes that are damaged make no sense: then the damage is the reason.
        if (error instanceof PullError && SENSELESS.includes(error.code)) await prove();
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
    readonly followed?: FollowedLayers | undefined;
  },
  work: (run: ExportRun) => Promise<T>,
): Promise<T> {
  const { paths, layers, files, followed } = given;
  const { signal } = given.options;
  signal?.throwIfAborted();
  const counters = createCounters();
  const setup = { storeRoot: paths.root, counters, ...(files && { layers: files }) };
  const pool = followed?.pool ?? (await startExportPool(exportThreads(), setup));
  const abort = () => void pool.destroy();
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  let thrown: Error | undefined;
  const emit = guardListener(given.options.onEvent, (error) => {
    thrown = error;
    abort();
  });
  const progress = new ExportProgress(followed?.written ?? new CounterReader(counters, 'written'), emit);
  let result: T;
  try {
    result = await work({ pool, layers, emit, begin: progress.begin });
    progress.tell();
  } catch (error) {
    signal?.throwIfAborted();
    throw thrown ?? outsideStore(error, paths.root);
  } finally {
    progress.close();
    signal?.removeEventListener('abort', abort);
    await pool.destroy();
  }
  // A promise that the last call returned has been rejected by now.
  if (thrown !== undefined) throw thrown;
  return result;
}

/** How many threads an export has. */
export function exportThreads(): number {
  return Math.max(1, Math.min(MOST_THREADS, usableCores()));
}

/** Threads that do the tasks of an export. @throws PullError as `WorkerPool.start` */
export function startExportPool(threads: number, setup: WorkerSetup): Promise<WorkerPool> {
  return WorkerPool.start({ threads, tasksPerThread: 1, setup, onEvent: () => {} });
}

/** The layers as their records have them, each record read once. */
function storedLayers(paths: StorePaths, diffIds: readonly string[]): StoredLayer[] {
  const known = new Map<string, StoredLayer>();
  return diffIds.map((diffId) => {
    const layer = known.get(diffId) ?? storedLayer(paths, parseDigest(diffId, 'DiffID'));
    known.set(diffId, layer);
    return layer;
  });
}

/** The layers with their tags; a layer that occurs twice has the same ones. */
function tagLayers(layers: readonly StoredLayer[], known?: FollowedLayers['tags']): TaggedLayer[] {
  const each = distinct(layers);
  if (sumOf(each) > MAX_FILES_TAR_BYTES) {
    throw new PullError('unsupported', `the tars of the layers have ${sumOf(each)} bytes: more than 16 TiB`, {
      hint: 'export the layers as they are, with layers:DIR',
    });
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

/** @throws PullError `store-broken` when it is not in the store any more */
function storedLayer(paths: StorePaths, diffId: Digest): StoredLayer {
  const record = readLayerRecord(paths, diffId);
  if (record === undefined) {
    throw new PullError('store-broken', `layer ${diffId} is not in the store ${paths.root} any more`, {
      layer: diffId,
      hint: 'pull the image again',
    });
  }
  return { diffId, extents: record.extents.toRows(), tarBytes: record.extents.lengthBytes };
}

/** Each layer once, in the order of their first occurrence. */
export function distinct<L extends StoredLayer>(layers: readonly L[]): L[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

/** Bytes of these layers' tars. */
export function sumOf(layers: readonly StoredLayer[]): number {
  return layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
}

/** Each layer once, the largest first. */
async function proveLayers(pool: WorkerPool, layers: readonly TaggedLayer[]): Promise<void> {
  const each = distinct(layers).sort((a, b) => b.tarBytes - a.tarBytes);
  await Promise.all(each.map((layer) => proveLayer(pool, layer)));
}

async function proveLayer(pool: WorkerPool, { diffId, extents, tags }: TaggedLayer): Promise<void> {
  const { whole, changed, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents, tags });
  if (!whole) throw damaged(diffId, falsePaths);
  if (changed) throw changedLayer(diffId);
}

/** The error for a layer that did not hash to its DiffID. What of it is false is marked: the next pull fetches it again. */
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
