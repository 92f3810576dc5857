import { listNames } from '../files/guarded-directory.js';
import { ifExists } from '../files/storage-error.js';
import { IndexScan, listIndexedPacks } from './index-files.js';
import { isContent, type RecordType } from './index-format.js';
import { listLayerFiles } from './layer-files.js';
import { readRecordFile } from './layer-record.js';
import type { Lease } from './leases.js';
import { removePack } from './pack-sync.js';
import type { PackId, StorePaths } from './paths.js';
import { InUse } from './sweep.js';

/**
 * Deletes packs that no layer record names, as long as nobody else uses the store: another pull may be making a layer of what it
 * found in them. What is left is prune's to delete.
 * @throws PullError as `storageError`
 */
export async function removeUnnamed(
  paths: StorePaths,
  lease: Lease,
  packs: ReadonlySet<PackId>,
): Promise<void> {
  const requireUnused = () => {
    const [other] = lease.others();
    if (other !== undefined) throw new InUse(other);
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
    if (!(error instanceof InUse)) throw error;
  }
}

/**
 * Deletes packs that processes which are gone have left and that no pull can use: they are not sealed, no layer record names them, and their
 * indexes have no pieces, which alone prove anything in such a pack. A pull that was killed leaves what its streams had decoded to
 * in such a pack. Call this before this process writes a pack.
 * @throws PullError as `storageError`
 */
export async function removeUseless(paths: StorePaths, lease: Lease): Promise<void> {
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
  await removeUnnamed(paths, lease, new Set(useless.map(({ id }) => id)));
}
