import type { OpenDirectory } from '../../src/files/open-directory.js';
import { removeAt } from '../../src/files/remove-tree.js';
import { storageError, systemCode, wrapFsErrorAsync } from '../../src/files/storage-error.js';

/** Rows dealt with before the thread's other business has its turn: some milliseconds. */
export const ROWS_A_TURN = 100;

/**
 * Does what makes `name` in a directory. With `replace`, what is there under that name goes first, whatever it is; it is never
 * written to or followed.
 * @throws PullError as `storageError`
 */
export async function place<T>(
  directory: OpenDirectory,
  name: Buffer,
  replace: boolean,
  make: () => T,
): Promise<T> {
  try {
    return make();
  } catch (error) {
    if (!replace || systemCode(error) !== 'EEXIST')
      throw storageError(error, `create ${directory.pathOf(name)}`);
  }
  return wrapFsErrorAsync(`replace ${directory.pathOf(name)}`, async () => {
    await removeAt(directory, name);
    return make();
  });
}
