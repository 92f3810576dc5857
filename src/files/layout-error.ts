import { PullError } from '../format/error.js';
import { UnfitFile } from './open-file.js';
import { storageError, systemCode } from './storage-error.js';

/** The hint for a malformed layout. */
export const LAYOUT_HINT = 'write the layout again, with zpull copy or skopeo copy';

/** Returns the hint for bytes of a layout at `path` that do not match their digest. */
export function damagedHint(path: string): string {
  return `${path} is damaged: ${LAYOUT_HINT}`;
}

/**
 * Runs `action`, which reads a file of an OCI layout, and returns its result.
 * @param absent makes the error for a missing file
 * @throws PullError of `absent`; `metadata-malformed` for a link, a pipe or too large a file;
 *   `store-denied` for any other system error
 */
export function wrapLayoutError<T>(path: string, action: () => T, absent?: (cause: unknown) => PullError): T {
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
