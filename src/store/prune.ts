import { basename } from 'node:path';
import { writeAtomically } from '../files/atomic-file.js';
import { requireSpace } from '../files/disk-space.js';
import { deadScratches } from '../files/scratch.js';
import { wrapFsError } from '../files/storage-error.js';
import { digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { CopyRunsResult } from '../pool/messages.js';
import { createCounters } from '../pool/shared-memory.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { bytesOf, containingRun, ExtentList, neededRuns, type Runs } from './extents.js';
import { type ImageRecord, listImageRecords } from './image-record.js';
import {
  encodeLayerRecord,
  type LayerFile,
  type LayerRecord,
  listLayerFiles,
  readLayerRecord,
  readRecordFile,
} from './layer-record.js';
import { Lease, type LeaseKind } from './leases.js';
import { removePack, sealPack } from './pack-files.js';
import { imageRecordPath, openStore, type PackId, type StoreOptions, type StorePaths } from './paths.js';
import { type PackFiles, StoreInUse, Sweep } from './sweep.js';

/** What a prune freed. */
export interface PruneResult {
  /** Disk space, less that of rewritten packs. */
  readonly freedBytes: number;
  readonly removedLayers: number;
  readonly removedPacks: number;
  readonly removedBlobs: number;
  readonly rewrittenPacks: number;
  /**
   * What another process did with the store, which ended the prune early; null if it was completed.
   */
  readonly stoppedBy: LeaseKind | null;
}

type Counts = {
  -readonly [Name in 'removedLayers' | 'removedPacks' | 'removedBlobs' | 'rewrittenPacks']: number;
};

/**
 * Deletes what no image in the store needs: layer records, packs, blobs and leftovers of dead
 * processes. Rewrites packs of which little is needed. Stops as soon as another process uses the
 * store. A dry run deletes and rewrites nothing, and returns what a prune would do.
 * @throws PullError as `storageError`
 */
export async function pruneStore(
  options: StoreOptions & {
    /** Deletes only files that were not written for this long; default 0. */
    readonly olderThanMs?: number;
    /** Default false. */
    readonly dryRun?: boolean;
  },
): Promise<PruneResult> {
  const { olderThanMs = 0, dryRun = false } = options;
  const paths = openStore(options.store, options.warn);
  const lease = new Lease(paths, 'prune');
  const beforeMs = olderThanMs === 0 ? Number.POSITIVE_INFINITY : Date.now() - olderThanMs;
  const sweep = new Sweep(paths, lease, beforeMs, dryRun);
  const counts: Counts = { removedLayers: 0, removedPacks: 0, removedBlobs: 0, rewrittenPacks: 0 };
  let stoppedBy: LeaseKind | null = null;
  try {
    await lease.awaitStale();
    sweep.requireUnused();
    if (!dryRun) lease.removeDeadLeases();
    await prune(paths, sweep, counts);
  } catch (error) {
    if (!(error instanceof StoreInUse)) throw error;
    stoppedBy = error.by;
  } finally {
    lease.close();
  }
  return { freedBytes: sweep.freedBytes, ...counts, stoppedBy };
}

/** Deletes records before packs, so that a pack is never deleted while a record names it. */
async function prune(paths: StorePaths, sweep: Sweep, counts: Counts): Promise<void> {
  const images = listImageRecords(paths);
  await sweepImages(paths, sweep, images);
  counts.removedLayers = await sweepLayers(paths, sweep, images);
  counts.removedBlobs = await sweepBlobs(paths, sweep, images);
  await sweep.files(paths.locks, () => true);
  const scratches = wrapFsError(`read the store ${paths.root}`, () => deadScratches(paths.root));
  for (const path of scratches) sweep.tree(path);
  // Unfinished files, whose processes are dead.
  await sweep.files(paths.packs, (name) => name.endsWith('.tmp'));
  const records = keptRecords(paths).filter(({ file }) => !sweep.isSpared(file.path));
  const needed = neededRuns(records.map(({ record }) => record.extents));
  const packs = sweep.packs();
  for (const pack of packs) {
    if (needed.has(pack.id) || !sweep.isOldEnough(pack.writtenMs)) continue;
    await sweep.pack(pack);
    counts.removedPacks += 1;
  }
  counts.rewrittenPacks = await rewritePacks(paths, worthRewriting(packs, needed, sweep), records, sweep);
}

async function sweepImages(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<void> {
  const known = new Set(
    images.map(({ reference, platform }) => basename(imageRecordPath(paths, reference, platform))),
  );
  await sweep.files(paths.images, (name) => !known.has(name));
}

/** Deletes layer records that are invalid, unused or set aside and replaced; returns how many. */
async function sweepLayers(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<number> {
  const needed = new Set(images.flatMap(({ diffIds }) => diffIds));
  const kept = new Set(
    listLayerFiles(paths)
      .filter(({ diffId, path, damaged }) => {
        if (!needed.has(diffId) || readRecordFile(path, diffId) === undefined) return false;
        return !damaged || readLayerRecord(paths, diffId) === undefined;
      })
      .map(({ path }) => basename(path)),
  );
  return sweep.files(paths.layers, (name) => !kept.has(name));
}

async function sweepBlobs(paths: StorePaths, sweep: Sweep, images: readonly ImageRecord[]): Promise<number> {
  const named = images.flatMap(({ manifestDigest, configDigest }) => [manifestDigest, configDigest]);
  const kept = new Set(named.map(digestHex));
  return sweep.files(paths.blobs, (name) => !kept.has(name));
}

function keptRecords(paths: StorePaths): KeptRecord[] {
  return listLayerFiles(paths).flatMap((file) => {
    const record = readRecordFile(file.path, file.diffId);
    return record === undefined ? [] : [{ file, record }];
  });
}

/**
 * Smaller sealed packs are merged: each costs every look-up an open file, and readers keep 64 open.
 */
const SMALL_PACK_BYTES = 4 * 2 ** 20;

/** A layer record that is kept. */
interface KeptRecord {
  readonly file: LayerFile;
  readonly record: LayerRecord;
}

/** A pack to replace, with the runs to keep. */
interface Source {
  readonly files: PackFiles;
  readonly runs: Runs;
}

/**
 * Returns the packs to rewrite: those of which less than half is needed, and small ones if there
 * are several. Leaves out packs that lack needed bytes.
 */
function worthRewriting(
  packs: readonly PackFiles[],
  needed: ReadonlyMap<PackId, Runs>,
  sweep: Sweep,
): Source[] {
  const candidates = packs.flatMap((files) => {
    const runs = needed.get(files.id);
    if (runs === undefined || !sweep.isOldEnough(files.writtenMs)) return [];
    return runs.at(-1)! <= files.packBytes ? [{ files, runs }] : [];
  });
  const mostlyDead = candidates.filter(({ files, runs }) => 2 * bytesOf(runs) < files.diskBytes);
  const small = candidates.filter(
    (source) =>
      source.files.sealed && source.files.packBytes < SMALL_PACK_BYTES && !mostlyDead.includes(source),
  );
  // Rewriting a single small pack gains nothing.
  return mostlyDead.length + small.length > 1 ? [...mostlyDead, ...small] : mostlyDead;
}

/**
 * Copies the needed runs of these packs into a new one, updates the layer records and deletes the
 * old packs; a dry run only counts. Returns without an error if the disk is full: every record then names existing packs.
 * @returns the number of replaced packs
 * @throws StoreInUse, else PullError as `storageError`
 */
async function rewritePacks(
  paths: StorePaths,
  sources: readonly Source[],
  records: readonly KeptRecord[],
  sweep: Sweep,
): Promise<number> {
  if (sources.length === 0) return 0;
  if (sweep.isDryRun) {
    for (const { files, runs } of sources) sweep.freedBytes += files.diskBytes - bytesOf(runs);
    return sources.length;
  }
  let copied: CopyRunsResult | undefined;
  try {
    await requireSpace(
      paths.root,
      sources.reduce((sum, { runs }) => sum + bytesOf(runs), 0),
    );
    copied = await copy(paths, sources);
    await sealPack(paths, copied.pack);
    for (const { file, record } of records) {
      const extents = moved(record.extents, sources, copied);
      if (extents === undefined) continue;
      sweep.requireUnused();
      await writeAtomically(file.path, encodeLayerRecord({ ...record, extents }), true);
    }
  } catch (error) {
    if (copied !== undefined && !isNamed(copied.pack, records)) await removePack(paths, copied.pack);
    if (error instanceof PullError && error.code === 'store-full') return 0;
    throw error;
  }
  const names = [`${copied.pack}.pack`, `${copied.pack}.idx`, `${copied.pack}.bad`];
  sweep.freedBytes -= sweep.packFiles(copied.pack, names).diskBytes;
  for (const { files } of sources) await sweep.pack(files);
  return sources.length;
}

/** Returns whether a record names the pack: its write may have failed after the rename. */
function isNamed(pack: PackId, records: readonly KeptRecord[]): boolean {
  return records.some(({ file }) => readRecordFile(file.path, file.diffId)?.extents.packs.includes(pack));
}

/** Copies in another thread, so that this one keeps renewing the lease. */
async function copy(paths: StorePaths, sources: readonly Source[]): Promise<CopyRunsResult> {
  const pool = await WorkerPool.start({
    threads: 1,
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters() },
    onEvent: () => {},
  });
  try {
    return await pool.run({
      task: 'copy-runs',
      sources: sources.map(({ files, runs }) => ({ pack: files.id, runs })),
    });
  } finally {
    await pool.destroy();
  }
}

/** Returns the extents with copied runs at their new offsets, or undefined if none was copied. */
function moved(
  extents: ExtentList,
  sources: readonly Source[],
  { pack, starts }: CopyRunsResult,
): ExtentList | undefined {
  const rows = new Map(sources.map(({ files }, row) => [files.id, row]));
  if (!extents.packs.some((id) => rows.has(id))) return undefined;
  const list = new ExtentList();
  for (let i = 0; i < extents.count; i++) {
    const offset = extents.offsetAt(i);
    const length = extents.lengthAt(i);
    const source = rows.get(extents.packAt(i));
    if (source === undefined) {
      list.push(extents.packAt(i), offset, length);
    } else {
      const { runs } = sources[source]!;
      const run = containingRun(runs, offset, offset + length);
      list.push(pack, starts[source]![run]! + offset - runs[2 * run]!, length);
    }
  }
  return list;
}
