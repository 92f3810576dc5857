import { moveFile, removeFile, syncDirectory, syncFile } from '../files/atomic-file.js';
import { statFile } from '../files/open-file.js';
import { wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import { isLost, markLost } from './bad-runs.js';
import { badRunsPath, indexPath, type PackId, packPath, type StorePaths } from './paths.js';

/**
 * Packs of which a sync has failed in this process. Linux reports a failed write-back once: a
 * second fsync would succeed, while reads return cached bytes that are not on the disk (Rebello et
 * al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So a sync is never
 * repeated, and `markLost` tells other processes.
 */
const lost = new Set<string>();

/**
 * Syncs packs, whichever process wrote them, unless they are sealed. Runs on libuv's pool.
 * @throws PullError as `storageError`; from then on every sync of the pack fails, and for every
 *   process all of the pack is bad
 */
export async function syncPacks(paths: StorePaths, ids: readonly PackId[]): Promise<void> {
  const unsealed = ids.filter((id) => !isSealed(paths, id));
  await Promise.all(unsealed.map((id) => syncPack(paths, id)));
  if (unsealed.length > 0) await syncDirectory(paths.packs, () => lose(paths, unsealed));
}

/**
 * Seals a complete pack: syncs pack and index, then gives the index its final name. From then on
 * look-ups trust the index without reading the pack.
 * @throws PullError as `syncPacks`
 */
export async function sealPack(paths: StorePaths, id: PackId): Promise<void> {
  await syncPack(paths, id);
  const open = indexPath(paths, id, false);
  const onLoss = () => lose(paths, [id]);
  await syncFile(open, onLoss);
  await moveFile(open, indexPath(paths, id, true));
  await syncDirectory(paths.packs, onLoss);
}

/**
 * Deletes a pack, its indexes first, so that no index names missing bytes.
 * @param before called before each file; if it throws, `zpull store prune` deletes the remaining
 *   files
 * @throws PullError as `storageError`, and what `before` throws
 */
export async function removePack(
  paths: StorePaths,
  id: PackId,
  before: () => void = () => {},
): Promise<void> {
  const indexes = [indexPath(paths, id, false), indexPath(paths, id, true)];
  for (const path of [...indexes, packPath(paths, id), badRunsPath(paths, id)]) {
    before();
    await removeFile(path);
  }
}

/** Records that a sync of these packs has failed. */
function lose(paths: StorePaths, ids: readonly PackId[]): void {
  for (const id of ids) {
    lost.add(packPath(paths, id));
    try {
      markLost(paths, id);
    } catch {
      // The mark may have been written, even if its sync failed. It need not survive a power cut,
      // after which reads return the bytes on the disk.
    }
  }
}

/** @throws PullError `store-broken` for a pack whose sync has failed */
function requireSynced(paths: StorePaths, id: PackId): void {
  const path = packPath(paths, id);
  if (!lost.has(path) && !isLost(paths, id)) return;
  throw new PullError('store-broken', `${path} was not written to the disk`, {
    hint: 'Check the disk, then pull again.',
  });
}

/** Checks twice: of two processes that sync a pack at the same time, only one gets the error. */
async function syncPack(paths: StorePaths, id: PackId): Promise<void> {
  requireSynced(paths, id);
  await syncFile(packPath(paths, id), () => lose(paths, [id]));
  requireSynced(paths, id);
}

function isSealed(paths: StorePaths, id: PackId): boolean {
  const path = indexPath(paths, id, true);
  return wrapFsError(`stat ${path}`, () => statFile(path)) !== undefined;
}
