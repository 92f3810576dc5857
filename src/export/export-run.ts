import { type Digest, parseDigest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import { usableCores } from '../pool/cores.js';
import { CounterReader, createCounters } from '../pool/counters.js';
import type { ExtentRows } from '../pool/messages.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { readLayerRecord } from '../store/layer-record.js';
import { withLease } from '../store/leases.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { outsideStore } from '../store/storage-error.js';
import type { ExportEvent } from './events.js';
import type { ExportOptions } from './options.js';

/** Threads of an export: more than this wait for the disk, not for a core. */
const MOST_THREADS = 4;

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/** What headers that make no sense are called. */
const SENSELESS: readonly ErrorCode[] = ['metadata-malformed', 'unsupported'];

/** A layer as its record has it. */
export interface StoredLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tarBytes: number;
}

/** What an export under way works with. */
export interface ExportRun {
  readonly pool: WorkerPool;
  /** Lowest first; the same one may occur twice. */
  readonly layers: readonly StoredLayer[];
  readonly emit: (event: ExportEvent) => void;
  /**
   * Hashes every layer, beside whatever else the threads do; once, however often it is called.
   * @throws PullError `digest-mismatch` for bytes that are gone or not their DiffID's
   */
  prove(): Promise<void>;
  /** Tells how much there is to write, and from then on how much is written. */
  begin(destination: string, totalBytes: number): void;
}

/**
 * Runs `work` with the layers of an image and threads to read them. An abort ends the threads at once.
 * @throws PullError `store-broken` when a layer is not in the store any more; what `work` throws; the abort's reason
 */
export function withExport<T>(options: ExportOptions, work: (run: ExportRun) => Promise<T>): Promise<T> {
  const paths = openStore(options.store);
  return withLease(paths, 'export', () => underLease(paths, options, work));
}

async function underLease<T>(
  paths: StorePaths,
  options: ExportOptions,
  work: (run: ExportRun) => Promise<T>,
): Promise<T> {
  const { diffIds, signal, onEvent = () => {} } = options;
  const layers = diffIds.map((diffId) => storedLayer(paths, parseDigest(diffId, 'DiffID')));
  signal?.throwIfAborted();
  const counters = createCounters();
  const pool = await WorkerPool.start({
    threads: Math.max(1, Math.min(MOST_THREADS, usableCores())),
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters, layers: layers.map(({ extents }) => extents) },
    onEvent: () => {},
  });
  const abort = () => void pool.destroy();
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  const progress = new ExportProgress(counters, onEvent);
  let proof: Promise<void> | undefined;
  const prove = () => {
    proof ??= proveLayers(pool, layers);
    proof.catch(() => {}); // heard of by whoever waits for it
    return proof;
  };
  try {
    const result = await work({ pool, layers, emit: onEvent, prove, begin: progress.begin });
    progress.tell();
    return result;
  } catch (error) {
    signal?.throwIfAborted();
    // Bytes that are damaged make no sense: then the damage is the reason.
    if (error instanceof PullError && SENSELESS.includes(error.code)) await prove();
    throw outsideStore(error, paths.root);
  } finally {
    progress.close();
    signal?.removeEventListener('abort', abort);
    await pool.destroy();
  }
}

function storedLayer(paths: StorePaths, diffId: Digest): StoredLayer {
  const record = readLayerRecord(paths, diffId);
  if (record === undefined) {
    throw new PullError('store-broken', `layer ${diffId} is not in the store ${paths.root} any more`, {
      hint: 'pull the image again',
    });
  }
  return { diffId, extents: record.extents.toRows(), tarBytes: record.extents.lengthBytes };
}

/** Makes regular events of what the threads count. */
class ExportProgress {
  readonly #written: CounterReader;
  readonly #onEvent: (event: ExportEvent) => void;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;

  constructor(counters: Uint32Array, onEvent: (event: ExportEvent) => void) {
    this.#written = new CounterReader(counters, 'written');
    this.#onEvent = onEvent;
  }

  readonly begin = (destination: string, totalBytes: number): void => {
    this.#totalBytes = totalBytes;
    this.#onEvent({ event: 'exporting', destination, totalBytes });
    this.#timer = setInterval(() => this.tell(), TICK_MS).unref();
  };

  tell(): void {
    const totalBytes = this.#totalBytes;
    this.#onEvent({ event: 'written', writtenBytes: this.#written.total(), totalBytes });
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** Each layer once, in the order of their first occurrence. */
export function distinct(layers: readonly StoredLayer[]): StoredLayer[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

/** Bytes of these layers' tars. */
export function sumOf(layers: readonly StoredLayer[]): number {
  return layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
}

/** Each layer once, the largest first. */
async function proveLayers(pool: WorkerPool, layers: readonly StoredLayer[]): Promise<void> {
  const each = distinct(layers).sort((a, b) => b.tarBytes - a.tarBytes);
  await Promise.all(each.map((layer) => proveLayer(pool, layer)));
}

async function proveLayer(pool: WorkerPool, { diffId, extents }: StoredLayer): Promise<void> {
  const { whole, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents });
  if (!whole) throw damaged(diffId, falsePaths);
}

/** The error for a layer that did not hash to its DiffID. What of it is false is marked: the next pull fetches it again. */
export async function damageOf(pool: WorkerPool, { diffId, extents }: StoredLayer): Promise<PullError> {
  const { falsePaths } = await pool.run({ task: 'check-layer', diffId, extents });
  return damaged(diffId, falsePaths);
}

function damaged(diffId: Digest, falsePaths: readonly string[]): PullError {
  const where = falsePaths.length === 0 ? '' : `, in ${falsePaths[0]}`;
  return new PullError('digest-mismatch', `layer ${diffId} is damaged in the store${where}`, {
    hint: 'run zpull store verify, then pull the image again: only what is damaged is fetched',
  });
}
