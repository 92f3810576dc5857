import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { requireSpace } from '../files/disk-space.js';
import { makeOpenDirectory, type OpenDirectory } from '../files/open-directory.js';
import { wrapFsError } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { requireDirectory } from './destination-checks.js';
import { type ExportOptions, withExport } from './export-run.js';
import { damageOf, distinct, type StoredLayer, totalTarBytes } from './exported-layers.js';
import { UnfinishedFile } from './unfinished.js';

/** Layers under way: more than there are threads, so that none waits. */
const MAX_PARALLEL = 8;

/**
 * Writes each layer's tar into a directory, named HEX.tar after its DiffID. A file appears under its name only once
 * its bytes have proven to be the DiffID's.
 * @returns the paths written, one a layer, in the order of `diffIds`
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one is gone, `option-malformed` when
 *   the directory is none
 */
export async function exportLayers(
  options: ExportOptions & { readonly directory: string },
): Promise<string[]> {
  const directory = resolve(options.directory);
  requireDirectory(directory);
  const files: UnfinishedFile[] = [];
  let held: OpenDirectory | undefined;
  try {
    return await withExport(options, async ({ pool, layers, begin }) => {
      const place = wrapFsError(`make the directory ${directory}`, () => makeOpenDirectory(directory));
      held = place;
      const each = distinct(layers);
      begin(`layers:${options.directory}`, totalTarBytes(each));
      // One that is there makes room for what replaces it.
      const missing = each.filter(({ diffId }) => !existsSync(tarPath(directory, diffId)));
      await requireSpace(directory, totalTarBytes(missing));
      await forEachParallel(each, async (layer) => {
        const file = await UnfinishedFile.create(place, tarName(layer.diffId));
        files.push(file);
        await exportLayer(pool, layer, file);
      });
      return layers.map(({ diffId }) => tarPath(directory, diffId));
    });
  } finally {
    // No thread is left that writes to one of them.
    for (const file of files) await file.discard();
    held?.close();
  }
}

async function exportLayer(pool: WorkerPool, layer: StoredLayer, file: UnfinishedFile): Promise<void> {
  const { fd, path } = file;
  const { extents, diffId } = layer;
  const { digest } = await pool.run({ task: 'export-layer', extents, file: { fd, path }, position: 0 });
  if (digest !== diffId) throw await damageOf(pool, layer);
  await file.publish();
}

/** Does `work` for all items, a few at a time: each has a file open. The first that fails is told when all others have ended. */
async function forEachParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const failures: unknown[] = [];
  const lane = async () => {
    for (const item of queue) await work(item).catch((error: unknown) => failures.push(error));
  };
  await Promise.all(Array.from({ length: MAX_PARALLEL }, lane));
  if (failures.length > 0) throw failures[0];
}

function tarPath(directory: string, diffId: Digest): string {
  return join(directory, tarName(diffId));
}

function tarName(diffId: Digest): string {
  return `${digestHex(diffId)}.tar`;
}
