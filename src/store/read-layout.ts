import { UnfitFile } from '../files/open-file.js';
import { storageError, systemCode } from '../files/storage-error.js';
import { PullError } from '../format/error.js';

/** What helps where a layout is not as it should be. */
export const LAYOUT_HINT = 'write the layout again, with zpull copy or skopeo copy';

/** What helps where bytes in the layout, or in a blob of it, at `path` are not those of their digest. */
export function layoutDamaged(path: string): string {
  return `${path} is damaged: ${LAYOUT_HINT}`;
}

/**
 * Returns what `action` reads of a file of an OCI layout.
 * @param absent makes the error for a file that is not there; without it that is an error like others
 * @throws PullError of `absent`; `metadata-malformed` for a link, a pipe or what is too large in place of a file; `store-denied` for any other
 *   error of a system call
 */
export function readingLayout<T>(path: string, action: () => T, absent?: (cause: unknown) => PullError): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof UnfitFile)
      throw new PullError('metadata-malformed', error.message, { hint: LAYOUT_HINT, cause: error });
    const code = systemCode(error);
    if (absent !== undefined && (code === 'ENOENT' || code === 'ENOTDIR')) throw absent(error);
    if (code === undefined) throw error;
    const { message } = storageError(error, `read ${path}`) as PullError;
    throw new PullError('store-denied', message, {
      hint: 'check that this user may read the layout',
      cause: error,
    });
  }
}
