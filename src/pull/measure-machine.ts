import { resolve } from 'node:path';
import { requireSpace } from '../files/disk-space.js';
import { nearestExisting } from '../files/guarded-directory.js';
import { PullError } from '../format/error.js';
import type { MeasuredBlob, MeasuredWork, Results, Task } from '../pool/messages.js';
import { StageRecorder } from '../pool/stages.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { openStoreToRead } from '../store/paths.js';
import { imageLayers } from './layer.js';
import type { PullOptions } from './pull-options.js';
import { isLocal, type PullSession } from './pull-session.js';
import { type ResolvedImage, resolveSession } from './resolve-image.js';
import { withSession } from './with-session.js';

/**
 * The most that all threads together decode, hash or write in one measurement: 10 s of decoding
 * gzip with one thread, and no more disk space than an image takes.
 */
const MAX_BYTES = 2e9;

/** What each thread decodes before it is measured, to load and compile its decoders. */
const WARM_UP_BYTES = 16 * 2 ** 20;

export type MachineOptions = Pick<
  PullOptions,
  'store' | 'platform' | 'workers' | 'insecurePolicy' | 'signal' | 'onEvent'
>;

/** What all threads together did in `wallMs`. */
export interface PartMeasurement {
  readonly threads: number;
  readonly bytes: number;
  readonly wallMs: number;
  /** CPU time of the process meanwhile, with its threads and programs. */
  readonly cpuMs: number;
}

/** A part of a pull's work, by one thread and by all, each of which does the same. */
interface PartMeasurements {
  readonly one: PartMeasurement;
  readonly all: PartMeasurement;
}

export interface MachineMeasurement {
  readonly image: string;
  readonly digest: string;
  /** Bytes of the layers' blobs, and what they decode to, as far as one thread decoded them. */
  readonly blobBytes: number;
  readonly tarBytes: number;
  /** Whether the image has more than that. */
  readonly isPartial: boolean;
  readonly decode: PartMeasurements;
  readonly hash: PartMeasurements;
  readonly write: PartMeasurements;
}

/**
 * Measures the machine alone: decodes the layers of an image in an OCI layout, hashes as many bytes
 * as they decode to, and writes as many to the disk of the store, one after the other; each at
 * first with one thread, then with `workers` threads that all do the same. Drops what it decodes,
 * and leaves no file.
 * @throws PullError `option-malformed` for an image that is not in a layout; `metadata-malformed`
 *   or `unsupported` for a layer that cannot be decoded; `store-full`; as `storageError` and
 *   `pullImage` for the layout
 */
export function measureMachine(reference: string, options: MachineOptions): Promise<MachineMeasurement> {
  return withSession(reference, options, 'the measurement was interrupted', (session) => new Run(session));
}

/** One measurement. */
class Run {
  readonly #session: PullSession;
  #pool: Promise<WorkerPool> | undefined;

  constructor(session: PullSession) {
    this.#session = session;
  }

  async run(): Promise<MachineMeasurement> {
    const { source, settings } = this.#session;
    if (!isLocal(source)) throw notInLayout(source.image);
    const { image, blobs } = await this.#open();
    const pool = await this.#start();
    const { workers } = settings;
    await pool.run({ task: 'measure-read', blobs, maxBytes: MAX_BYTES });
    await measure(pool, workers, { task: 'measure-decode', blobs, maxBytes: WARM_UP_BYTES });
    const decode = await oneAndAll(pool, workers, (maxBytes) => ({
      task: 'measure-decode',
      blobs,
      maxBytes,
    }));
    const { bytes: tarBytes, blobBytes, isPartial } = decode.one.results[0]!;
    const hash = await oneAndAll(pool, workers, (maxBytes) => ({
      task: 'measure-hash',
      bytes: Math.min(tarBytes, maxBytes),
    }));
    const directory = nearestExisting(resolve(settings.store));
    await requireSpace(directory, Math.min(tarBytes * workers, MAX_BYTES), true);
    const write = await oneAndAll(pool, workers, (maxBytes) => ({
      task: 'measure-write',
      directory,
      bytes: Math.min(tarBytes, maxBytes),
    }));
    return {
      image: source.image,
      digest: image.manifestDigest,
      blobBytes,
      tarBytes,
      isPartial,
      decode: figuresOf(decode),
      hash: figuresOf(hash),
      write: figuresOf(write),
    };
  }

  async close(): Promise<void> {
    const pool = await this.#pool?.catch(() => undefined); // `run` throws it
    await pool?.destroy();
  }

  /** The image, and its layers' blobs, each once. */
  async #open(): Promise<{ readonly image: ResolvedImage; readonly blobs: readonly MeasuredBlob[] }> {
    const { settings, progress, registry } = this.#session;
    const warn = (message: string) => progress.emit({ event: 'warning', message });
    const paths = openStoreToRead(settings.store, warn);
    const image = await resolveSession(this.#session, paths, warn);
    await registry.open();
    const blobs = imageLayers(image, paths).map(({ descriptor: { digest }, kind }): MeasuredBlob => {
      const { compression, location } = kind;
      const isZstdChunked = location?.by === 'annotations';
      return { url: registry.blobUrl(digest), digest, compression, isZstdChunked };
    });
    return { image, blobs: [...new Map(blobs.map((blob) => [blob.digest, blob])).values()] };
  }

  async #start(): Promise<WorkerPool> {
    const { settings, setup, stop } = this.#session;
    this.#pool = WorkerPool.start({
      threads: settings.workers,
      tasksPerThread: 1,
      setup: { storeRoot: settings.store, isReadOnly: true, ...setup },
      onEvent: () => {},
    });
    const pool = await this.#pool;
    stop.onStop(() => void pool.destroy());
    return pool;
  }
}

type WorkTask = Extract<Task, { readonly task: 'measure-decode' | 'measure-hash' | 'measure-write' }>;

interface Measured<T extends WorkTask> {
  readonly figures: PartMeasurement;
  /** Of each thread. */
  readonly results: ReadonlyArray<Results[T['task']]>;
}

/** Measures a task in one thread and in all; `taskFor` gets the most bytes that a thread may process. */
async function oneAndAll<T extends WorkTask>(
  pool: WorkerPool,
  threads: number,
  taskFor: (maxBytes: number) => T,
): Promise<{ readonly one: Measured<T>; readonly all: Measured<T> }> {
  const one = await measure(pool, 1, taskFor(MAX_BYTES));
  const all = threads === 1 ? one : await measure(pool, threads, taskFor(Math.floor(MAX_BYTES / threads)));
  return { one, all };
}

async function measure<T extends WorkTask>(pool: WorkerPool, threads: number, task: T): Promise<Measured<T>> {
  const recorder = new StageRecorder();
  const results = await Promise.all(Array.from({ length: threads }, () => pool.run(task)));
  const { cpuSeconds } = recorder.result();
  const works: readonly MeasuredWork[] = results;
  const endedMs = Math.max(...works.map((work) => work.endedMs));
  const wallMs = endedMs - Math.min(...works.map(({ startedMs }) => startedMs));
  const bytes = works.reduce((sum, work) => sum + work.bytes, 0);
  return { results, figures: { threads, bytes, wallMs, cpuMs: cpuSeconds * 1000 } };
}

function figuresOf({ one, all }: { one: Measured<WorkTask>; all: Measured<WorkTask> }): PartMeasurements {
  return { one: one.figures, all: all.figures };
}

function notInLayout(image: string): PullError {
  return new PullError('option-malformed', `${image} is in a registry, not in a layout on this machine`, {
    hint: 'copy it first, with zpull copy IMAGE oci:DIR, and measure oci:DIR',
  });
}
