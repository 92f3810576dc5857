import { renameSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Digest, digestHex, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { usableCores } from '../pool/cores.js';
import { createCounters } from '../pool/counters.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { readLayerRecord } from '../store/layer-record.js';
import { withLease } from '../store/leases.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { onDisk, onDiskAsync } from '../store/storage-error.js';

/** Threads that write layers: more than this wait for the disk, not for a core. */
const MOST_THREADS = 4;

/**
 * Writes each layer's tar into a directory, named HEX.tar after its DiffID. A file appears under its name only once
 * its bytes have proven to be the DiffID's.
 * @returns the paths written, one a layer, in the order of `diffIds`
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one is gone
 */
export async function exportLayers(options: {
  /** Root directory of the store. */
  readonly store: string;
  readonly diffIds: readonly string[];
  readonly directory: string;
  /** Aborting ends the export at once; its reason is thrown, and no unfinished file stays. */
  readonly signal?: AbortSignal;
}): Promise<string[]> {
  const paths = openStore(options.store);
  const diffIds = options.diffIds.map((diffId) => parseDigest(diffId, 'DiffID'));
  const directory = resolve(options.directory);
  await onDiskAsync(`make the directory ${directory}`, () => mkdir(directory, { recursive: true }));
  const layers = [...new Set(diffIds)];
  options.signal?.throwIfAborted();
  const pool = await startPool(paths, layers.length);
  const abort = () => void pool.destroy();
  options.signal?.addEventListener('abort', abort);
  try {
    await withLease(paths, 'export', async () => {
      for (const result of await Promise.allSettled(
        layers.map((layer) => exportLayer(pool, paths, layer, directory)),
      )) {
        if (result.status === 'rejected') throw result.reason;
      }
    });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', abort);
    await pool.destroy();
  }
  return diffIds.map((diffId) => tarPath(directory, diffId));
}

function startPool(paths: StorePaths, layers: number): Promise<WorkerPool> {
  return WorkerPool.start({
    threads: Math.max(1, Math.min(MOST_THREADS, usableCores(), layers)),
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters() },
    onEvent: () => {},
  });
}

async function exportLayer(
  pool: WorkerPool,
  paths: StorePaths,
  diffId: Digest,
  directory: string,
): Promise<void> {
  const record = readLayerRecord(paths, diffId);
  if (record === undefined) {
    throw new PullError('store-broken', `layer ${diffId} is not in the store ${paths.root} any more`, {
      hint: 'pull the image again',
    });
  }
  const path = tarPath(directory, diffId);
  const unfinished = `${path}.part-${process.pid}`;
  try {
    const { digest } = await pool.run({
      task: 'export-layer',
      extents: record.extents.toRows(),
      path: unfinished,
    });
    if (digest !== diffId) throw damaged(diffId, digest);
    onDisk(`write ${path}`, () => renameSync(unfinished, path));
  } finally {
    rmSync(unfinished, { force: true });
  }
}

function damaged(diffId: Digest, actual: Digest): PullError {
  return new PullError(
    'digest-mismatch',
    `layer ${diffId} is damaged in the store: its bytes hash to ${actual}`,
    {
      hint: 'pull the image again into another store (--store DIR)',
    },
  );
}

function tarPath(directory: string, diffId: Digest): string {
  return join(directory, `${digestHex(diffId)}.tar`);
}
