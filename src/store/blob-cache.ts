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
 * Stores a small blob, whose digest the caller has checked. Does not sync it: `getBlob` hashes the
 * bytes again, and `writeImageRecord` syncs the blobs that it names. Does nothing in a read-only
 * store.
 * @throws PullError `store-full`, `store-denied` or `store-broken`
 */
export async function putBlob(paths: StorePaths, digest: Digest, bytes: Uint8Array): Promise<void> {
  if (paths.isReadOnly) return;
  await writeAtomically(blobPath(paths, digest), bytes, false);
}

/**
 * Returns a stored blob after checking its digest. Deletes a blob that is damaged, larger than
 * `maxBytes` (default: the limit of manifests and configs) or not a regular file, and returns
 * undefined.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
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
    // The damaged file stays, and the next call tries again.
  }
  return undefined;
}

/** Deletes a stored blob; an absent blob is no error. @throws PullError as `storageError` */
export async function deleteBlob(paths: StorePaths, digest: Digest): Promise<void> {
  await removeFile(blobPath(paths, digest));
}
