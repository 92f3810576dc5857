import { join } from 'node:path';
import { listNames } from '../files/guarded-directory.js';
import { statFile } from '../files/open-file.js';
import { ifExists, isDenied, wrapFsError } from '../files/storage-error.js';
import type { Digest } from '../format/digest.js';
import { moveFile, syncDirectory } from './atomic-file.js';
import { type LayerRecord, readRecordFile } from './layer-record.js';
import { damagedRecordPath, layerRecordPath, type StorePaths } from './paths.js';

/** A layer record as it lies on the disk, whether the layer is held or not. */
export interface LayerFile {
  readonly diffId: Digest;
  readonly path: string;
  /** Whether verify found it false: its layer is not held, its good extents are still of use. */
  readonly damaged: boolean;
}

/** All files that are named as layer records, in the order of their names. @throws PullError as `storageError` */
export function listLayerFiles(paths: StorePaths): LayerFile[] {
  const names = ifExists(`read ${paths.layers}`, () => listNames(paths.layers)) ?? [];
  return names.flatMap((name) => {
    const [, hex, damaged] = /^([0-9a-f]{64})(\.damaged)?$/.exec(name) ?? [];
    if (hex === undefined) return [];
    const diffId = `sha256:${hex}` as Digest;
    return [{ diffId, path: join(paths.layers, name), damaged: damaged !== undefined }];
  });
}

/** The record of a DiffID, else the one that was found damaged, whatever has become of its packs. */
export function findLayerRecord(paths: StorePaths, diffId: Digest): LayerRecord | undefined {
  return (
    readRecordFile(layerRecordPath(paths, diffId), diffId) ??
    readRecordFile(damagedRecordPath(paths, diffId), diffId)
  );
}

/**
 * Takes a layer out of what is held, if its record is there and this user may. It stays beside, so that nothing deletes the
 * extents that are still good.
 * @throws PullError as `storageError`
 */
export async function setAsideDamaged(paths: StorePaths, diffId: Digest): Promise<void> {
  const path = layerRecordPath(paths, diffId);
  if (wrapFsError(`look at ${path}`, () => statFile(path)) === undefined) return;
  try {
    await moveFile(path, damagedRecordPath(paths, diffId));
  } catch (error) {
    if (isDenied(error)) return;
    throw error;
  }
  await syncDirectory(paths.layers);
}
