import type { Digest } from '../format/digest.js';
import { removeFile, syncDirectory } from './atomic-file.js';
import { imagesNamed } from './find-images.js';
import { imageRecordPath, openStore } from './paths.js';

/** An image that is not in the store any more. */
export interface RemovedImage {
  readonly image: string;
  readonly digest: Digest;
  readonly platform: string;
}

/**
 * Takes an image out of the store, on every platform. Its layers stay until `pruneStore` finds that nobody needs them.
 * @throws PullError `image-not-found`, `reference-malformed`, else as `storageError`
 */
export async function removeImage(options: {
  /** Root directory of the store. */
  readonly store: string;
  /** Hears what the user should know of the store. */
  readonly warn?: (message: string) => void;
  readonly image: string;
}): Promise<RemovedImage[]> {
  const paths = openStore(options.store, options.warn);
  const records = imagesNamed(paths, options.image);
  for (const { reference, platform } of records)
    await removeFile(imageRecordPath(paths, reference, platform));
  await syncDirectory(paths.images);
  return records.map(({ reference, manifestDigest, platform }) => ({
    image: reference,
    digest: manifestDigest,
    platform,
  }));
}
