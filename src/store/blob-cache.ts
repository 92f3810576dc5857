import { createHash } from 'node:crypto';
import { readFileSync, statSync, unlinkSync } from 'node:fs';
import { type Digest, digestHex } from '../format/digest.js';
import { removeFile, writeAtomically } from './atomic-file.js';
import { blobPath, type StorePaths } from './paths.js';
import { unlessAbsent } from './storage-error.js';

/** The largest blob kept: manifests, configs, TOCs and tar-splits. A TOC of 1,000,000 files has about 300 MB. */
const MAX_BLOB_BYTES = 512 * 2 ** 20;

/**
 * Keeps a small blob under its digest. The bytes were hashed by whoever fetched them, and are again by whoever reads
 * them; so nothing is synced here (`writeImageRecord` syncs the blobs that it names).
 * @throws PullError `store-full`, `store-denied` or `store-broken`
 */
export async function putBlob(paths: StorePaths, digest: Digest, bytes: Uint8Array): Promise<void> {
  await writeAtomically(blobPath(paths, digest), bytes, false);
}

/**
 * A kept blob whose bytes are right. One that is damaged is deleted and counts as absent.
 * @throws PullError `store-denied` or `store-broken` when the disk does not answer
 */
export function getBlob(paths: StorePaths, digest: Digest): Buffer | undefined {
  const path = blobPath(paths, digest);
  const bytes = unlessAbsent(`read ${path}`, () =>
    statSync(path).size <= MAX_BLOB_BYTES ? readFileSync(path) : Buffer.alloc(0),
  );
  if (bytes === undefined) return undefined;
  if (createHash('sha256').update(bytes).digest('hex') === digestHex(digest)) return bytes;
  try {
    unlinkSync(path);
  } catch {
    // It stays, and is found damaged again.
  }
  return undefined;
}

/** Deletes a kept blob, if it is there. @throws PullError as `storageError` */
export async function deleteBlob(paths: StorePaths, digest: Digest): Promise<void> {
  await removeFile(blobPath(paths, digest));
}
