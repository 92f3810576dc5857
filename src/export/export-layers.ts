import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Digest, digestHex } from '../format/digest.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { moveFile } from '../store/atomic-file.js';
import { requireDirectory } from '../store/destination.js';
import { requireSpace } from '../store/disk-space.js';
import { makeDirectory } from '../store/make-directory.js';
import { onDisk } from '../store/storage-error.js';
import { damageOf, distinct, type StoredLayer, sumOf, withExport } from './export-run.js';
import type { ExportOptions } from './options.js';
import { removeUnfinished, unfinishedName } from './unfinished.js';

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
  return withExport(options, async ({ pool, layers, begin }) => {
    onDisk(`make the directory ${directory}`, () => makeDirectory(directory));
    const each = distinct(layers);
    begin(`layers:${options.directory}`, sumOf(each));
    // One that is there makes room for what replaces it.
    const missing = each.filter(({ diffId }) => !existsSync(tarPath(directory, diffId)));
    await requireSpace(directory, sumOf(missing));
    const written = await Promise.allSettled(each.map((layer) => exportLayer(pool, layer, directory)));
    for (const result of written) if (result.status === 'rejected') throw result.reason;
    return layers.map(({ diffId }) => tarPath(directory, diffId));
  });
}

async function exportLayer(pool: WorkerPool, layer: StoredLayer, directory: string): Promise<void> {
  const { diffId, extents } = layer;
  const path = tarPath(directory, diffId);
  const unfinished = await unfinishedName(path);
  try {
    const { digest } = await pool.run({ task: 'export-layer', extents, path: unfinished });
    if (digest !== diffId) throw await damageOf(pool, layer);
    await moveFile(unfinished, path);
  } finally {
    await removeUnfinished(unfinished);
  }
}

function tarPath(directory: string, diffId: Digest): string {
  return join(directory, `${digestHex(diffId)}.tar`);
}
