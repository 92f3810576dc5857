import { onAbort, throwIfAborted } from '../format/abort.js';
import type { Digest } from '../format/digest.js';
import { usableCores } from '../pool/cores.js';
import { createCounters } from '../pool/shared-memory.js';
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
import { openStore, type StoreOptions, type StorePaths } from './paths.js';

/** Hashing threads: each does 1.7 GB/s, and four match the fastest disks. */
const MAX_THREADS = 4;

const INTERRUPTED = 'the check was interrupted';

/** A damaged part of a layer. */
export interface DamagedPart {
  readonly diffId: Digest;
  /** The entry of the layer's tar with wrong bytes, if known. */
  readonly path?: string;
  /** References of the images with the layer. */
  readonly images: readonly string[];
}

/** What a check of the store found. */
export interface VerifyResult {
  /** Number of checked layers. */
  readonly checked: number;
  readonly damaged: readonly DamagedPart[];
}

/**
 * Hashes every layer of the store, or of one image on all platforms, in parallel. A layer that does
 * not match its DiffID is no longer cached; the next pull reuses its intact parts.
 * @throws PullError `image-not-found`, `reference-malformed`, else as `storageError`
 */
export async function verifyStore(
  options: StoreOptions & {
    readonly image?: string;
    /**
     * Ends the check at once. The error is the reason if it is a PullError, otherwise `interrupted`
     * with the reason as its cause.
     */
    readonly signal?: AbortSignal;
  },
): Promise<VerifyResult> {
  const { signal } = options;
  throwIfAborted(signal, INTERRUPTED);
  const paths = openStore(options.store, options.warn);
  const images = imagesOf(paths);
  const selected =
    options.image === undefined
      ? [...images.keys(), ...listLayerFiles(paths).map(({ diffId }) => diffId)]
      : imagesNamed(paths, options.image).flatMap(({ diffIds }) => diffIds);
  const diffIds = [...new Set(selected)];
  const records = diffIds.map((diffId) => ({ diffId, record: findLayerRecord(paths, diffId) }));
  const damaged = await withLease(paths, 'verify', () => checkAll(paths, records, signal));
  return {
    checked: diffIds.length,
    damaged: diffIds.flatMap((diffId) =>
      (damaged.get(diffId) ?? []).map((path) => ({
        diffId,
        ...(path !== undefined && { path }),
        images: images.get(diffId) ?? [],
      })),
    ),
  };
}

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

/**
 * Returns the damaged layers with the paths of damaged entries; undefined stands for an unknown
 * path.
 */
async function checkAll(
  paths: StorePaths,
  layers: readonly { readonly diffId: Digest; readonly record: LayerRecord | undefined }[],
  signal: AbortSignal | undefined,
): Promise<Map<Digest, (string | undefined)[]>> {
  const damaged = new Map<Digest, (string | undefined)[]>();
  const found = layers.filter(({ record }) => record !== undefined) as { record: LayerRecord }[];
  for (const { diffId, record } of layers) if (record === undefined) damaged.set(diffId, [undefined]);
  if (found.length === 0) return damaged;
  const pool = await WorkerPool.start({
    threads: Math.max(1, Math.min(MAX_THREADS, usableCores(), found.length)),
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters() },
    onEvent: () => {},
  });
  const abort = () => void pool.destroy();
  const removeAbort = onAbort(signal, abort);
  // Longest first, so that all threads finish at about the same time.
  found.sort((a, b) => b.record.extents.lengthBytes - a.record.extents.lengthBytes);
  try {
    throwIfAborted(signal, INTERRUPTED);
    const checks = found.map(async ({ record }) => {
      const falsePaths = await checkLayer(pool, paths, record);
      if (falsePaths !== undefined) damaged.set(record.diffId, falsePaths);
    });
    for (const check of await Promise.allSettled(checks)) if (check.status === 'rejected') throw check.reason;
  } catch (error) {
    throwIfAborted(signal, INTERRUPTED);
    throw error;
  } finally {
    removeAbort();
    await pool.destroy();
  }
  return damaged;
}

/** Returns the paths of damaged entries, or undefined if the layer is intact and cached. */
async function checkLayer(
  pool: WorkerPool,
  paths: StorePaths,
  record: LayerRecord,
): Promise<(string | undefined)[] | undefined> {
  const { diffId, extents } = record;
  const { isIntact, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents: extents.toRows() });
  const now = readLayerRecord(paths, diffId);
  // A pull may have replaced the record meanwhile.
  const replaced = now !== undefined && !encodeLayerRecord(now).equals(encodeLayerRecord(record));
  if (replaced || (isIntact && now !== undefined)) return undefined;
  if (!isIntact) await setAsideRecord(paths, diffId);
  return falsePaths.length === 0 ? [undefined] : [...falsePaths];
}
