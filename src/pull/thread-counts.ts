import type { MissingLayer } from './layer.js';

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
