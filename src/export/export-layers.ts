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

/** Layers written at a time: more than there are threads, so that no thread waits. */
const MAX_PARALLEL = 8;

/**
 * Writes each layer's tar into a directory, named HEX.tar after its DiffID. A file gets its name
 * once its bytes hash to the DiffID.
 * @returns the path of each layer's file, in the order of `diffIds`
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one
 *   is missing, `option-malformed` when the path is not a directory
 */
export async function exportLayers(
  options: ExportOptions & { readonly directory: string },
): Promise<string[]> {
  const directory = resolve(options.directory);
  requireDirectory(directory);
  const files: UnfinishedFile[] = [];
  let opened: OpenDirectory | undefined;
  try {
    return await withExport(options, async ({ pool, layers, begin }) => {
      const parent = wrapFsError(`make the directory ${directory}`, () => makeOpenDirectory(directory));
      opened = parent;
      const each = distinct(layers);
      begin(`layers:${options.directory}`, totalTarBytes(each));
      // An existing file makes room for its replacement.
      const missing = each.filter(({ diffId }) => !existsSync(tarPath(directory, diffId)));
      await requireSpace(directory, totalTarBytes(missing));
      await forEachParallel(each, async (layer) => {
        const file = await UnfinishedFile.create(parent, tarName(layer.diffId));
        files.push(file);
        await exportLayer(pool, layer, file);
      });
      return layers.map(({ diffId }) => tarPath(directory, diffId));
    });
  } finally {
    // By now no thread writes to them.
    for (const file of files) await file.discard();
    opened?.close();
  }
}

async function exportLayer(pool: WorkerPool, layer: StoredLayer, file: UnfinishedFile): Promise<void> {
  const { fd, path } = file;
  const { extents, diffId } = layer;
  const { digest } = await pool.run({ task: 'export-layer', extents, file: { fd, path }, position: 0 });
  if (digest !== diffId) throw await damageOf(pool, layer);
  await file.publish();
}

/**
 * Does `work` for all items, a few at a time, as each has a file open. Throws the first error at
 * the end.
 */
async function forEachParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const failures: unknown[] = [];
  const worker = async () => {
    for (const item of queue) await work(item).catch((error: unknown) => failures.push(error));
  };
  await Promise.all(Array.from({ length: MAX_PARALLEL }, worker));
  if (failures.length > 0) throw failures[0];
}

function tarPath(directory: string, diffId: Digest): string {
  return join(directory, tarName(diffId));
}

function tarName(diffId: Digest): string {
  return `${digestHex(diffId)}.tar`;
}
