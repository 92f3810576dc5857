import { createHash } from 'node:crypto';
import { removeFile, removeFileSync, writeAtomically } from '../files/atomic-file.js';
import { readFile, UnfitFile } from '../files/open-file.js';
import { ifExists } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { MAX_MANIFEST_BYTES } from '../format/manifest.js';
import { blobPath, type StorePaths } from './paths.js';

/** The largest manifest or config that is parsed. */
const MAX_DOCUMENT_BYTES = Math.max(MAX_MANIFEST_BYTES, MAX_CONFIG_BYTES);

/**
 * Keeps a small blob under its digest. The bytes were hashed by whoever fetched them, and are again by whoever reads
 * them; so nothing is synced here (`writeImageRecord` syncs the blobs that it names). A store that is only read does not keep it.
 * @throws PullError `store-full`, `store-denied` or `store-broken`
 */
export async function putBlob(paths: StorePaths, digest: Digest, bytes: Uint8Array): Promise<void> {
  if (paths.isReadOnly) return;
  await writeAtomically(blobPath(paths, digest), bytes, false);
}

/**
 * A kept blob whose bytes are right. One that is damaged, larger than `maxBytes` (as a rule, what a manifest or config may have) or no
 * regular file is deleted and counts as absent.
 * @throws PullError `store-denied` or `store-broken` when the disk does not answer
 */
export function getBlob(
  paths: StorePaths,
  digest: Digest,
  maxBytes: number = MAX_DOCUMENT_BYTES,
): Buffer | undefined {
  const path = blobPath(paths, digest);
  try {
    const bytes = ifExists(`read ${path}`, () => readFile(path, maxBytes));
    if (bytes === undefined) return undefined;
    if (createHash('sha256').update(bytes).digest('hex') === digestHex(digest)) return bytes;
  } catch (error) {
    if (!(error instanceof UnfitFile)) throw error;
  }
  if (paths.isReadOnly) return undefined;
  try {
    removeFileSync(path);
  } catch {
    // It stays, and is found damaged again.
  }
  return undefined;
}

/** Deletes a kept blob, if it is there. @throws PullError as `storageError` */
export async function deleteBlob(paths: StorePaths, digest: Digest): Promise<void> {
  await removeFile(blobPath(paths, digest));
}
