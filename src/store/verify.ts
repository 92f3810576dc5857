import type { Digest } from '../format/digest.js';
import { usableCores } from '../pool/cores.js';
import { createCounters } from '../pool/counters.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { imagesNamed, listImageRecords } from './image-record.js';
import {
  encodeLayerRecord,
  findLayerRecord,
  type LayerRecord,
  listLayerFiles,
  readLayerRecord,
  setAsideRecord,
} from './layer-record.js';
import { withLease } from './leases.js';
import { openStore, type StorePaths } from './paths.js';

/** Threads that hash: each does 1.7 GB/s, and four are as much as the fastest disks give. */
const MAX_THREADS = 4;

/** Something in the store that is not what it should be. */
export interface DamagedPart {
  readonly diffId: Digest;
  /** The entry of the layer's tar with false bytes, where it is known. */
  readonly path?: string;
  /** References of the images that have the layer. */
  readonly images: readonly string[];
}

export interface VerifyResult {
  /** Layers that were looked at. */
  readonly checked: number;
  readonly damaged: readonly DamagedPart[];
}

/**
 * Hashes every layer of the store, or of one image on every platform, as many at a time as there are cores. A layer that
 * is not its DiffID's is not held any more; what of it is good stays, and the next pull fetches the rest.
 * @throws PullError `image-not-found`, `reference-malformed`, else as `storageError`
 */
export async function verifyStore(options: {
  /** Root directory of the store. */
  readonly store: string;
  /** Hears what the user should know of the store. */
  readonly warn?: (message: string) => void;
  readonly image?: string;
  /** Aborting ends the check at once; its reason is thrown. */
  readonly signal?: AbortSignal;
}): Promise<VerifyResult> {
  const { signal } = options;
  signal?.throwIfAborted();
  const paths = openStore(options.store, options.warn);
  const images = imagesOf(paths);
  const wanted = options.image === undefined ? allLayers(paths, images) : layersOf(paths, options.image);
  const records = wanted.map((diffId) => ({ diffId, record: findLayerRecord(paths, diffId) }));
  const damaged = await withLease(paths, 'verify', () => checkAll(paths, records, signal));
  return {
    checked: wanted.length,
    damaged: wanted.flatMap((diffId) =>
      (damaged.get(diffId) ?? []).map((path) => ({
        diffId,
        ...(path !== undefined && { path }),
        images: images.get(diffId) ?? [],
      })),
    ),
  };
}

/** The references that have each DiffID. */
function imagesOf(paths: StorePaths): Map<Digest, string[]> {
  const images = new Map<Digest, string[]>();
  for (const { reference, diffIds } of listImageRecords(paths)) {
    for (const diffId of new Set(diffIds)) {
      const known = images.get(diffId) ?? [];
      if (!known.includes(reference)) images.set(diffId, [...known, reference]);
    }
  }
  return images;
}

function allLayers(paths: StorePaths, images: ReadonlyMap<Digest, unknown>): Digest[] {
  const recorded = listLayerFiles(paths).map(({ diffId }) => diffId);
  return [...new Set([...images.keys(), ...recorded])];
}

function layersOf(paths: StorePaths, image: string): Digest[] {
  return [...new Set(imagesNamed(paths, image).flatMap(({ diffIds }) => diffIds))];
}

interface Wanted {
  readonly diffId: Digest;
  readonly record: LayerRecord | undefined;
}

/** Of the layers that are not whole, the names of what is false; one without a name where none is known. */
async function checkAll(
  paths: StorePaths,
  wanted: readonly Wanted[],
  signal: AbortSignal | undefined,
): Promise<Map<Digest, (string | undefined)[]>> {
  const damaged = new Map<Digest, (string | undefined)[]>();
  const found = wanted.filter(({ record }) => record !== undefined) as { record: LayerRecord }[];
  for (const { diffId, record } of wanted) if (record === undefined) damaged.set(diffId, [undefined]);
  if (found.length === 0) return damaged;
  const pool = await WorkerPool.start({
    threads: Math.max(1, Math.min(MAX_THREADS, usableCores(), found.length)),
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters() },
    onEvent: () => {},
  });
  const abort = () => void pool.destroy();
  signal?.addEventListener('abort', abort);
  // The longest first: a short one behind it fills the other threads.
  found.sort((a, b) => b.record.extents.lengthBytes - a.record.extents.lengthBytes);
  try {
    signal?.throwIfAborted();
    const checks = found.map(async ({ record }) => {
      const falsePaths = await checkLayer(pool, paths, record);
      if (falsePaths !== undefined) damaged.set(record.diffId, falsePaths);
    });
    for (const check of await Promise.allSettled(checks)) if (check.status === 'rejected') throw check.reason;
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
    await pool.destroy();
  }
  return damaged;
}

/** What is false of a layer, or undefined if it is whole and held. */
async function checkLayer(
  pool: WorkerPool,
  paths: StorePaths,
  record: LayerRecord,
): Promise<(string | undefined)[] | undefined> {
  const { diffId, extents } = record;
  const { whole, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents: extents.toRows() });
  const now = readLayerRecord(paths, diffId);
  // A pull may have put a good one in its place meanwhile.
  const replaced = now !== undefined && !encodeLayerRecord(now).equals(encodeLayerRecord(record));
  if (replaced || (whole && now !== undefined)) return undefined;
  if (!whole) await setAsideRecord(paths, diffId);
  return falsePaths.length === 0 ? [undefined] : [...falsePaths];
}
