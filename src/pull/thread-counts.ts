import type { WantedLayer } from './layer.js';

/** Support threads for metadata, look-up and the hashes of chunked layers: one hashes 1.7 GB/s, more than most networks bring. */
const MAX_SHARED_SUPPORT_THREADS = 4;

/** A stream has work for two threads: one hashes the blob, walks the tar and writes, the other hashes the tar. libuv's pool decodes. */
const THREADS_PER_STREAM = 2;

/** A thread costs 25 MB and 30 ms of CPU time before it does anything. As much takes 8 MiB of gzip to decode. */
const MIN_STREAM_BYTES_PER_THREAD = 8 * 2 ** 20;

/** What fetches less than this uses one worker: one small pack instead of several tiny ones. */
const ONE_WORKER_BYTES = 8 * 2 ** 20;

/** A thread that only writes what it receives keeps this many decoders busy: it takes 1 GB/s, and each of them 0.2. */
const DECODERS_PER_FETCHER = 4;

/** At least so many: on one core, one stream is decoded by libuv's pool while the other one is hashed. */
const MIN_STREAMS = 2;

/**
 * What all streams may take of the memory, and what is reckoned for each: two threads and 20 MB. Frames of zeros, which are decoded 32 MiB at
 * once, take up to twice as much.
 */
const STREAMS_MEMORY_SHARE = 1 / 4;
const STREAM_BYTES = 64 * 2 ** 20;

/** What decides how many threads a pull starts. */
interface Demand {
  readonly workers: number;
  readonly connections: number;
  readonly memoryBytes: number;
  readonly layers: number;
  /** Sizes of the blobs of those layers that are one stream. */
  readonly streamBytes: readonly number[];
}

/**
 * How many support threads a pull has. Layers that are one stream are decoded and hashed there, so that these get up to a thread a worker.
 * Chunked layers are decoded by the threads that fetch them.
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
 * Sizes of the blobs that are one stream, as far as the layers' descriptors tell. A zstd blob without annotations may have a footer that leads
 * to a table of contents; hardly any has.
 */
export function likelyStreamBytes(layers: ReadonlyArray<Pick<WantedLayer, 'blob' | 'place'>>): number[] {
  return layers
    .filter(({ place }) => place === undefined || (place.by === 'footer' && place.compression === 'zstd'))
    .map(({ blob }) => blob.sizeBytes);
}

/** How many threads fetch `fetchBytes` bytes. Where all layers are streams they decode nothing. */
export function fetchThreads(workers: number, fetchBytes: number, areStreams: boolean): number {
  if (fetchBytes < ONE_WORKER_BYTES) return 1;
  return areStreams ? Math.ceil(workers / DECODERS_PER_FETCHER) : workers;
}

/**
 * How many threads fetch a copy of `fetchBytes` bytes, and whether one may share the only support thread. Half of the workers fetch and the
 * others hash: on two cores a thread that fetches keeps up with one that hashes, and a second one costs 0.5 s of CPU time and 15 MB more a copy
 * of 800 MB.
 */
export function copyThreads(
  workers: number,
  fetchBytes: number,
): { readonly threads: number; readonly mayShare: boolean } {
  const isSmall = fetchBytes < ONE_WORKER_BYTES;
  return { threads: isSmall ? 1 : Math.ceil(workers / 2), mayShare: isSmall || workers === 1 };
}

/** How many streams are decoded at a time: one a worker, as each keeps more than a core busy, in so much memory. */
export function streamsAtATime(workers: number, memoryBytes: number): number {
  const fitting = Math.floor((memoryBytes * STREAMS_MEMORY_SHARE) / STREAM_BYTES);
  return Math.max(MIN_STREAMS, Math.min(workers, fitting));
}
