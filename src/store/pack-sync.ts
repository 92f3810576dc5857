import { existsSync } from 'node:fs';
import { PullError } from '../format/error.js';
import { moveFile, removeFile, syncDirectory, syncFile } from './atomic-file.js';
import { badRunsPath, indexPath, type PackId, packPath, type StorePaths } from './paths.js';

/**
 * Packs of which a sync has failed in this process. Linux reports lost pages once; a second fsync would succeed over
 * the hole (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So none is tried.
 */
const lost = new Set<string>();

async function syncPack(paths: StorePaths, id: PackId): Promise<void> {
  const path = packPath(paths, id);
  if (lost.has(path)) {
    throw new PullError('store-broken', `${path} was not written to the disk`, {
      hint: 'Check the disk, then pull again.',
    });
  }
  try {
    await syncFile(path);
  } catch (error) {
    lost.add(path);
    throw error;
  }
}

/**
 * Makes packs survive a power cut, whoever wrote them. A sealed one does already. Runs on libuv's pool.
 * @throws PullError as `storageError`; from then on the pack fails every time
 */
export async function syncPacks(paths: StorePaths, ids: readonly PackId[]): Promise<void> {
  const unsealed = ids.filter((id) => !existsSync(indexPath(paths, id, true)));
  await Promise.all(unsealed.map((id) => syncPack(paths, id)));
  if (unsealed.length > 0) await syncDirectory(paths.packs);
}

/**
 * Seals a pack that nobody writes any more: pack and index are on disk, then the index gets its final name. From then
 * on its pieces are believed without reading them.
 * @throws PullError as `storageError`
 */
export async function sealPack(paths: StorePaths, id: PackId): Promise<void> {
  await syncPack(paths, id);
  const open = indexPath(paths, id, false);
  await syncFile(open);
  await moveFile(open, indexPath(paths, id, true));
  await syncDirectory(paths.packs);
}

/** Deletes a pack, its indexes first, so that none ever names bytes that are gone. @throws PullError as `storageError` */
export async function removePack(paths: StorePaths, id: PackId): Promise<void> {
  await removeFile(indexPath(paths, id, false));
  await removeFile(indexPath(paths, id, true));
  await removeFile(packPath(paths, id));
  await removeFile(badRunsPath(paths, id));
}
