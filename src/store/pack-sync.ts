import { moveFile, removeFile, syncDirectory, syncFile } from '../files/atomic-file.js';
import { statFile } from '../files/open-file.js';
import { wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import { isLost, markLost } from './bad-runs.js';
import { badRunsPath, indexPath, type PackId, packPath, type StorePaths } from './paths.js';

/**
 * Packs of which a sync has failed in this process. Linux reports lost pages once; a second fsync would succeed over
 * the hole, and reads give from memory what is not on the disk (Rebello et al., "Can Applications Recover from fsync
 * Failures?", USENIX ATC 2020). So none is tried, and others are told by `markLost`.
 */
const lost = new Set<string>();

/** Called when a sync that packs depend on has failed. */
function lose(paths: StorePaths, ids: readonly PackId[]): void {
  for (const id of ids) {
    lost.add(packPath(paths, id));
    try {
      markLost(paths, id);
    } catch {
      // The mark may stand for all that: it need not survive a power cut, after which only true bytes are read.
    }
  }
}

/** @throws PullError `store-broken` for a pack that is lost */
function requireKept(paths: StorePaths, id: PackId): void {
  const path = packPath(paths, id);
  if (!lost.has(path) && !isLost(paths, id)) return;
  throw new PullError('store-broken', `${path} was not written to the disk`, {
    hint: 'Check the disk, then pull again.',
  });
}

/** Who syncs a pack at the same time may be the one that is told of the loss. */
async function syncPack(paths: StorePaths, id: PackId): Promise<void> {
  requireKept(paths, id);
  await syncFile(packPath(paths, id), () => lose(paths, [id]));
  requireKept(paths, id);
}

function isSealed(paths: StorePaths, id: PackId): boolean {
  const path = indexPath(paths, id, true);
  return wrapFsError(`look at ${path}`, () => statFile(path)) !== undefined;
}

/**
 * Makes packs survive a power cut, whoever wrote them. A sealed one does already. Runs on libuv's pool.
 * @throws PullError as `storageError`; from then on the pack fails every time, and for everybody nothing is in it
 */
export async function syncPacks(paths: StorePaths, ids: readonly PackId[]): Promise<void> {
  const unsealed = ids.filter((id) => !isSealed(paths, id));
  await Promise.all(unsealed.map((id) => syncPack(paths, id)));
  if (unsealed.length > 0) await syncDirectory(paths.packs, () => lose(paths, unsealed));
}

/**
 * Seals a pack that nobody writes any more: pack and index are on disk, then the index gets its final name. From then
 * on its pieces are believed without reading them.
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
 * Deletes a pack, its indexes first, so that none ever names bytes that are gone. `before` is called before each file: when it throws,
 * those that are left are nobody's.
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
