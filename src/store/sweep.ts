import type { Stats } from 'node:fs';
import { join } from 'node:path';
import { removeFile } from '../files/atomic-file.js';
import { BLOCK_BYTES } from '../files/disk-space.js';
import { listNames } from '../files/guarded-directory.js';
import { statName } from '../files/open-file.js';
import { removeTree, treeBytes } from '../files/remove-tree.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { listLayerFiles, readRecordFile } from './layer-record.js';
import type { Lease, LeaseKind } from './leases.js';
import { removePack } from './pack-files.js';
import { IndexScan, isContent, listIndexedPacks, type RecordType } from './pack-index.js';
import { isPackId, type PackId, packPath, type StorePaths } from './paths.js';

/** Another process uses the store, so nothing more may be deleted. */
export class StoreInUse extends Error {
  readonly by: LeaseKind;

  constructor(by: LeaseKind) {
    super(`the store is in use: ${by}`);
    this.by = by;
  }
}

/** The existing files of a pack. */
export interface PackFiles {
  readonly id: PackId;
  /** Disk space, which excludes holes. */
  readonly diskBytes: number;
  readonly packBytes: number;
  /** The last modification of a file, in milliseconds since 1970. */
  readonly writtenMs: number;
  readonly sealed: boolean;
}

/**
 * Deletes files while no other process uses the store, and counts the freed bytes. A dry run only
 * counts them.
 */
export class Sweep {
  freedBytes = 0;
  readonly isDryRun: boolean;
  readonly #paths: StorePaths;
  readonly #lease: Lease;
  /** Files written later are kept; milliseconds since 1970. */
  readonly #beforeMs: number;
  /** What a dry run has not deleted. */
  readonly #spared = new Set<string>();

  constructor(paths: StorePaths, lease: Lease, beforeMs: number, isDryRun = false) {
    this.#paths = paths;
    this.#lease = lease;
    this.#beforeMs = beforeMs;
    this.isDryRun = isDryRun;
  }

  /** @throws StoreInUse if another live lease exists; PullError as `storageError` */
  requireUnused(): void {
    requireUnused(this.#lease);
  }

  /** Returns whether a file may be deleted for its age. */
  isOldEnough(writtenMs: number): boolean {
    return writtenMs <= this.#beforeMs;
  }

  /** Returns whether a dry run counts a file as deleted. */
  isSpared(path: string): boolean {
    return this.#spared.has(path);
  }

  /**
   * Deletes old enough files whose names match `isGarbage`; returns how many.
   * @throws as `requireUnused` and `removeFile`
   */
  async files(directory: string, isGarbage: (name: string) => boolean): Promise<number> {
    const names = ifExists(`read ${directory}`, () => listNames(directory, isGarbage)) ?? [];
    let removed = 0;
    for (const name of names) if (await this.#file(join(directory, name))) removed += 1;
    return removed;
  }

  /** Deletes a directory with all that is in it. @throws StoreInUse, else PullError as `storageError` */
  tree(path: string): void {
    this.requireUnused();
    wrapFsError(`delete ${path}`, () => {
      const stat = statName(path);
      if (stat === undefined || !this.isOldEnough(stat.mtimeMs)) return;
      const bytes = treeBytes(path);
      if (!this.isDryRun) removeTree(path);
      this.freedBytes += bytes;
    });
  }

  async #file(path: string): Promise<boolean> {
    const stat = statEntry(path);
    if (stat === undefined || !this.isOldEnough(stat.mtimeMs)) return false;
    this.requireUnused();
    if (this.isDryRun) this.#spared.add(path);
    else await removeFile(path);
    this.freedBytes += stat.blocks * BLOCK_BYTES;
    return true;
  }

  /** Deletes a pack. @throws StoreInUse, else PullError as `storageError` */
  async pack({ id, diskBytes }: PackFiles): Promise<void> {
    if (this.isDryRun) this.requireUnused();
    else await removePack(this.#paths, id, () => this.requireUnused());
    this.freedBytes += diskBytes;
  }

  /**
   * Lists all packs, also those with only an index or a list of bad runs.
   * @throws PullError as `storageError`
   */
  packs(): PackFiles[] {
    const names = wrapFsError(`read ${this.#paths.packs}`, () => listNames(this.#paths.packs));
    const byId = new Map<PackId, string[]>();
    for (const name of names) {
      const id = name.slice(0, name.indexOf('.'));
      if (isPackId(id)) byId.set(id, [...(byId.get(id) ?? []), name]);
    }
    return [...byId].map(([id, files]) => this.packFiles(id, files));
  }

  /** Returns the sizes of these files of a pack. */
  packFiles(id: PackId, files: readonly string[]): PackFiles {
    const path = packPath(this.#paths, id);
    const stats = files.flatMap((name) => {
      const file = join(this.#paths.packs, name);
      const stat = statEntry(file);
      return stat === undefined ? [] : [{ stat, isPack: file === path }];
    });
    return {
      id,
      diskBytes: stats.reduce((sum, { stat }) => sum + stat.blocks * BLOCK_BYTES, 0),
      packBytes: stats.find(({ isPack, stat }) => isPack && stat.isFile())?.stat.size ?? 0,
      writtenMs: Math.max(0, ...stats.map(({ stat }) => stat.mtimeMs)),
      sealed: files.includes(`${id}.idx`),
    };
  }
}

function requireUnused(lease: Lease): void {
  const [other] = lease.otherKinds();
  if (other !== undefined) throw new StoreInUse(other);
}

/**
 * Returns the status of a file or of a link itself, or undefined for a directory, which is never
 * deleted.
 */
function statEntry(path: string): Stats | undefined {
  const stat = wrapFsError(`stat ${path}`, () => statName(path));
  return stat?.isDirectory() === true ? undefined : stat;
}

/**
 * Deletes those of `packs` that no layer record names, while no other process uses the store:
 * another pull may be building a layer from them. Remaining packs are left to `zpull store prune`.
 * @throws PullError as `storageError`
 */
export async function removeUnreferenced(
  paths: StorePaths,
  lease: Lease,
  packs: ReadonlySet<PackId>,
): Promise<void> {
  if (packs.size === 0) return;
  try {
    requireUnused(lease);
    const unreferenced = new Set(packs);
    for (const { path, diffId } of listLayerFiles(paths)) {
      for (const pack of readRecordFile(path, diffId)?.extents.packs ?? []) unreferenced.delete(pack);
    }
    for (const pack of unreferenced) await removePack(paths, pack, () => requireUnused(lease));
  } catch (error) {
    if (!(error instanceof StoreInUse)) throw error;
  }
}

/**
 * Deletes unsealed packs that no layer record names and no pull can use, because their indexes have
 * no pieces, whose crc32 alone can prove the bytes of an unsealed pack. A killed pull leaves such
 * packs with the decoded bytes of opaque layers. To be called before this process writes a pack.
 * @throws PullError as `storageError`
 */
export async function removeUnusable(paths: StorePaths, lease: Lease): Promise<void> {
  const isOpen = (name: string) => name.endsWith('.idx.open');
  const names = ifExists(`read ${paths.packs}`, () => listNames(paths.packs, isOpen)) ?? [];
  if (names.length === 0) return;
  const indexes = new IndexScan(paths);
  const unusable = listIndexedPacks(paths).filter((pack) => {
    let hasPieces = pack.sealed;
    const isPiece = (type: RecordType) => !isContent(type);
    if (!pack.sealed) indexes.read(pack, isPiece, () => (hasPieces = true));
    return !hasPieces;
  });
  await removeUnreferenced(paths, lease, new Set(unusable.map(({ id }) => id)));
}
