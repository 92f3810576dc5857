import type { Stats } from 'node:fs';
import { join } from 'node:path';
import { removeFile } from '../files/atomic-file.js';
import { BLOCK_BYTES } from '../files/disk-space.js';
import { listNames } from '../files/guarded-directory.js';
import { statName } from '../files/open-file.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { IndexScan, listIndexedPacks } from './index-files.js';
import { isContent, type RecordType } from './index-format.js';
import { listLayerFiles, readRecordFile } from './layer-record.js';
import type { Lease, LeaseKind } from './leases.js';
import { removePack } from './pack-sync.js';
import { isPackId, type PackId, packPath, type StorePaths } from './paths.js';

/** Somebody uses the store: nothing more is deleted. */
export class StoreInUse extends Error {
  readonly by: LeaseKind;

  constructor(by: LeaseKind) {
    super(`the store is in use: ${by}`);
    this.by = by;
  }
}

/** Files of one pack, whatever of them is there. */
export interface PackFiles {
  readonly id: PackId;
  /** Room that they take on the disk; holes take none. */
  readonly diskBytes: number;
  readonly packBytes: number;
  /** When one of them was last written, in milliseconds since 1970. */
  readonly writtenMs: number;
  readonly sealed: boolean;
}

/** Deletes files as long as nobody else uses the store, and counts what that frees. */
export class Sweep {
  freedBytes = 0;
  readonly #paths: StorePaths;
  readonly #lease: Lease;
  /** What was written since is left alone, in milliseconds since 1970. */
  readonly #beforeMs: number;

  constructor(paths: StorePaths, lease: Lease, beforeMs: number) {
    this.#paths = paths;
    this.#lease = lease;
    this.#beforeMs = beforeMs;
  }

  /** @throws StoreInUse when somebody else has a lease; PullError as `storageError` */
  requireUnused(): void {
    const [other] = this.#lease.otherKinds();
    if (other !== undefined) throw new StoreInUse(other);
  }

  /** Whether something is old enough to be deleted. */
  isOldEnough(writtenMs: number): boolean {
    return writtenMs <= this.#beforeMs;
  }

  /** Deletes the files of a directory that `isGarbage` names and that are old enough; how many. @throws as `removeFile` */
  async files(directory: string, isGarbage: (name: string) => boolean): Promise<number> {
    const names = ifExists(`read ${directory}`, () => listNames(directory, isGarbage)) ?? [];
    let removed = 0;
    for (const name of names) if (await this.#file(join(directory, name))) removed += 1;
    return removed;
  }

  async #file(path: string): Promise<boolean> {
    const stat = lookAt(path);
    if (stat === undefined || !this.isOldEnough(stat.mtimeMs)) return false;
    this.requireUnused();
    await removeFile(path);
    this.freedBytes += stat.blocks * BLOCK_BYTES;
    return true;
  }

  /** Deletes a pack. @throws StoreInUse, else PullError as `storageError` */
  async pack({ id, diskBytes }: PackFiles): Promise<void> {
    await removePack(this.#paths, id, () => this.requireUnused());
    this.freedBytes += diskBytes;
  }

  /** All packs, also those of which only an index or a list of bad runs is there. @throws PullError as `storageError` */
  packs(): PackFiles[] {
    const names = wrapFsError(`read ${this.#paths.packs}`, () => listNames(this.#paths.packs));
    const byId = new Map<PackId, string[]>();
    for (const name of names) {
      const id = name.slice(0, name.indexOf('.'));
      if (isPackId(id)) byId.set(id, [...(byId.get(id) ?? []), name]);
    }
    return [...byId].map(([id, files]) => this.packFiles(id, files));
  }

  /** What these files of a pack take. */
  packFiles(id: PackId, files: readonly string[]): PackFiles {
    const path = packPath(this.#paths, id);
    const stats = files.flatMap((name) => {
      const file = join(this.#paths.packs, name);
      const stat = lookAt(file);
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

/** What has this name, a link itself included. A directory counts as nothing: no file of ours is one, and none is emptied. */
function lookAt(path: string): Stats | undefined {
  const stat = wrapFsError(`look at ${path}`, () => statName(path));
  return stat?.isDirectory() === true ? undefined : stat;
}

/**
 * Deletes packs that no layer record names, as long as nobody else uses the store: another pull may be making a layer of what it
 * found in them. What is left is prune's to delete.
 * @throws PullError as `storageError`
 */
export async function removeUnreferenced(
  paths: StorePaths,
  lease: Lease,
  packs: ReadonlySet<PackId>,
): Promise<void> {
  const requireUnused = () => {
    const [other] = lease.otherKinds();
    if (other !== undefined) throw new StoreInUse(other);
  };
  if (packs.size === 0) return;
  try {
    requireUnused();
    const unnamed = new Set(packs);
    for (const { path, diffId } of listLayerFiles(paths)) {
      for (const pack of readRecordFile(path, diffId)?.extents.packs ?? []) unnamed.delete(pack);
    }
    for (const pack of unnamed) await removePack(paths, pack, requireUnused);
  } catch (error) {
    if (!(error instanceof StoreInUse)) throw error;
  }
}

/**
 * Deletes packs that processes which are gone have left and that no pull can use: they are not sealed, no layer record names them, and their
 * indexes have no pieces, which alone prove anything in such a pack. A pull that was killed leaves what its streams had decoded to
 * in such a pack. Call this before this process writes a pack.
 * @throws PullError as `storageError`
 */
export async function removeUnusable(paths: StorePaths, lease: Lease): Promise<void> {
  const isOpen = (name: string) => name.endsWith('.idx.open');
  const names = ifExists(`read ${paths.packs}`, () => listNames(paths.packs, isOpen)) ?? [];
  if (names.length === 0) return;
  const indexes = new IndexScan(paths);
  const useless = listIndexedPacks(paths).filter((pack) => {
    let hasPieces = pack.sealed;
    const isPiece = (type: RecordType) => !isContent(type);
    if (!pack.sealed) indexes.read(pack, isPiece, () => (hasPieces = true));
    return !hasPieces;
  });
  await removeUnreferenced(paths, lease, new Set(useless.map(({ id }) => id)));
}
