import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { formatBytes } from '../format/figures.js';
import type { LayerTable } from '../format/layer-table.js';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/metadata-position.js';
import { Semaphore } from '../pool/semaphore.js';
import { acquireRoom, createDecodedRoom, type DecodedRoom, roomLeft } from '../pool/shared-memory.js';
import type { MissingLayer } from './layer.js';

/** Memory for the metadata of layers that are read at the same time. */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/**
 * Metadata of all layers of a pull together: 500,000 files with tar-split. Reading takes 2 to 8 ns
 * of CPU time a byte, twice for a TOC with a tar-split, so that metadata made to be slow costs a
 * few seconds. Layers beyond it are pulled as opaque ones.
 */
const MAX_PULL_METADATA_BYTES = 768 * 2 ** 20;

/**
 * Limits the memory for metadata of one pull's layers, which is acquired in bytes before anything
 * is read.
 */
export class MetadataBudget extends Semaphore {
  #totalBytes = 0;

  constructor() {
    super(METADATA_BUDGET_BYTES);
  }

  /**
   * Adds to the metadata that the pull reads in total.
   * @throws PullError `unsupported` beyond the limit
   */
  count(bytes: number): void {
    const totalBytes = this.#totalBytes + bytes;
    if (totalBytes > MAX_PULL_METADATA_BYTES) {
      throw new PullError(
        'unsupported',
        `with it, the metadata of all layers takes ${formatBytes(totalBytes)}; the limit is ${formatBytes(MAX_PULL_METADATA_BYTES)}`,
      );
    }
    this.#totalBytes = totalBytes;
  }
}

type Layer = Pick<MissingLayer, 'blob' | 'diffId'>;

/** Limits what the layers of one pull decode to beyond MAX_DECODED_RATIO times their blobs. */
export class DecodedAllowance {
  readonly #room = createDecodedRoom(FREE_DECODED_BYTES);
  /**
   * Bytes beyond the ratio, by DiffID: the maximum, as a layer decoded again replaces its earlier
   * bytes.
   */
  readonly #acquiredBytes = new Map<Digest, number>();

  /** The limit for a task that decodes an opaque layer, which acquires room itself. */
  forOpaque({ diffId }: Layer): { readonly room: DecodedRoom; readonly takenBytes: number } {
    return { room: this.#room, takenBytes: this.#acquiredBytes.get(diffId) ?? 0 };
  }

  /** Notes how many bytes that task has decoded. */
  noteOpaque(layer: Layer, tarBytes: number): void {
    const { takenBytes } = this.forOpaque(layer);
    this.#acquiredBytes.set(layer.diffId, Math.max(takenBytes, beyondRatio(layer, tarBytes)));
  }

  /**
   * Acquires room for the decoded size that a layer's table states, before anything is fetched.
   * @throws PullError `metadata-malformed` beyond the limit
   */
  noteTable(layer: Layer, table: LayerTable): void {
    const { sizeBytes, layout, tarBytes } = table;
    const statedBytes = layout === 'tar-split' ? tarBytes : sizeBytes.reduce((sum, bytes) => sum + bytes, 0);
    const { room, takenBytes } = this.forOpaque(layer);
    const bytes = beyondRatio(layer, statedBytes);
    if (!acquireRoom(room, Math.max(0, bytes - takenBytes))) {
      const blobBytes = layer.blob.sizeBytes;
      const maxBytes = blobBytes * MAX_DECODED_RATIO + takenBytes + roomLeft(room);
      throw new PullError(
        'metadata-malformed',
        `its metadata states ${formatBytes(statedBytes)} for a blob of ${formatBytes(blobBytes)}; the limit is ${formatBytes(maxBytes)}`,
      );
    }
    this.#acquiredBytes.set(layer.diffId, Math.max(takenBytes, bytes));
  }
}

function beyondRatio({ blob }: Pick<Layer, 'blob'>, tarBytes: number): number {
  return Math.max(0, tarBytes - blob.sizeBytes * MAX_DECODED_RATIO);
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

/**
 * The number of support threads of a pull. They decode and hash opaque layers, which get up to a
 * thread a worker. Chunked layers are decoded by the threads that fetch them.
 */
export function supportThreads(demand: {
  readonly workers: number;
  readonly connections: number;
  readonly memoryBytes: number;
  readonly layers: number;
  /** Blob sizes of the opaque layers. */
  readonly streamBytes: readonly number[];
}): number {
  const { workers, connections, memoryBytes, layers, streamBytes } = demand;
  const shared = Math.min(MAX_SHARED_SUPPORT_THREADS, Math.floor(workers / 2), layers);
  const forStreams = Math.min(
    streamBytes.length === layers ? workers : Math.floor(workers / 2),
    Math.min(streamBytes.length, streamsAtATime(workers, memoryBytes)) * THREADS_PER_STREAM,
    Math.ceil(streamBytes.reduce((sum, bytes) => sum + bytes, 0) / MIN_STREAM_BYTES_PER_THREAD),
  );
  return Math.max(1, Math.min(connections, Math.max(shared, forStreams)));
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
