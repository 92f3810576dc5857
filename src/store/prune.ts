import { basename } from 'node:path';
import { digestHex } from '../format/digest.js';
import { type ImageRecord, listImageRecords } from './image-record.js';
import { listLayerFiles } from './layer-files.js';
import { readLayerRecord, readRecordFile } from './layer-record.js';
import { Lease, type LeaseKind } from './leases.js';
import { neededRuns } from './needed-runs.js';
import { imageRecordPath, openStore, type StorePaths } from './paths.js';
import { type KeptRecord, rewritePacks, worthRewriting } from './rewrite-packs.js';
import { InUse, Sweep } from './sweep.js';

/** What a prune did. */
export interface PruneResult {
  /** Room on the disk; what was written anew is taken off. */
  readonly freedBytes: number;
  readonly removedLayers: number;
  readonly removedPacks: number;
  readonly removedBlobs: number;
  readonly rewrittenPacks: number;
  /** What another process was doing with the store, which ended this before its time; null if nothing did. */
  readonly stoppedBy: LeaseKind | null;
}

type Counts = {
  -readonly [Name in 'removedLayers' | 'removedPacks' | 'removedBlobs' | 'rewrittenPacks']: number;
};

/**
 * Frees what no image in the store needs: layer records, packs, blobs, leftovers of processes that are gone. Packs of which
 * little is needed are written anew without the rest. It waits for nobody: as soon as another process uses the store it ends.
 * @throws PullError as `storageError`
 */
export async function pruneStore(options: {
  /** Root directory of the store. */
  readonly store: string;
  /** Hears what the user should know of the store. */
  readonly warn?: (message: string) => void;
  /** Only what was not written for so long; default 0. */
  readonly olderThanMs?: number;
}): Promise<PruneResult> {
  const paths = openStore(options.store, options.warn);
  const lease = new Lease(paths, 'prune');
  const sweep = new Sweep(paths, lease, beforeMs(options.olderThanMs));
  const counts: Counts = { removedLayers: 0, removedPacks: 0, removedBlobs: 0, rewrittenPacks: 0 };
  let stoppedBy: LeaseKind | null = null;
  try {
    await lease.settle();
    sweep.requireUnused();
    lease.removeDead();
    await prune(paths, sweep, counts);
  } catch (error) {
    if (!(error instanceof InUse)) throw error;
    stoppedBy = error.by;
  } finally {
    lease.close();
  }
  return { freedBytes: sweep.freedBytes, ...counts, stoppedBy };
}

function beforeMs(olderThanMs = 0): number {
  return olderThanMs === 0 ? Number.POSITIVE_INFINITY : Date.now() - olderThanMs;
}

/** Records first, then packs: what is still named is never deleted. */
async function prune(paths: StorePaths, sweep: Sweep, counts: Counts): Promise<void> {
  const images = listImageRecords(paths);
  await sweepImages(paths, sweep, images);
  counts.removedLayers = await sweepLayers(paths, sweep, images);
  counts.removedBlobs = await sweepBlobs(paths, sweep, images);
  await sweep.files(paths.locks, () => true);
  await sweep.files(paths.packs, isUnfinished);
  const records = keptRecords(paths);
  const needed = neededRuns(records.map(({ record }) => record.extents));
  const packs = sweep.packs();
  for (const pack of packs) {
    if (needed.has(pack.id) || !sweep.mayGo(pack.writtenMs)) continue;
    await sweep.pack(pack);
    counts.removedPacks += 1;
  }
  counts.rewrittenPacks = await rewritePacks(paths, worthRewriting(packs, needed, sweep), records, sweep);
}

/** A file on its way to its name whose process is gone. */
function isUnfinished(name: string): boolean {
  return name.endsWith('.tmp');
}

/** Image records that cannot be believed, and unfinished ones. */
async function sweepImages(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<void> {
  const known = new Set(
    images.map(({ reference, platform }) => basename(imageRecordPath(paths, reference, platform))),
  );
  await sweep.files(paths.images, (name) => !known.has(name));
}

/** Layer records that no image needs or that are none, and damaged ones that were replaced; how many. */
async function sweepLayers(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<number> {
  const wanted = new Set(images.flatMap(({ diffIds }) => diffIds));
  const kept = new Set(
    listLayerFiles(paths)
      .filter(({ diffId, path, damaged }) => {
        if (!wanted.has(diffId) || readRecordFile(path, diffId) === undefined) return false;
        return !damaged || readLayerRecord(paths, diffId) === undefined;
      })
      .map(({ path }) => basename(path)),
  );
  return sweep.files(paths.layers, (name) => !kept.has(name));
}

/** Blobs that no image names; how many. */
async function sweepBlobs(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<number> {
  const named = images.flatMap(({ manifestDigest, configDigest }) => [manifestDigest, configDigest]);
  const kept = new Set(named.map(digestHex));
  return sweep.files(paths.blobs, (name) => !kept.has(name));
}

/** The layer records that are still there, held or not. */
function keptRecords(paths: StorePaths): KeptRecord[] {
  return listLayerFiles(paths).flatMap((file) => {
    const record = readRecordFile(file.path, file.diffId);
    return record === undefined ? [] : [{ file, record }];
  });
}
