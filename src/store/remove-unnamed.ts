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
