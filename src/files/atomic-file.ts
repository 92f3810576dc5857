import { randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { type FileHandle, rename, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import { openGuarded, withGuarded, withGuardedAsync } from './guarded-directory.js';
import { NEW_FILE, openDirectory, openDirectoryAsync, openFileAsync } from './open-file.js';
import { ifExists, systemCode, wrapFsError, wrapFsErrorAsync } from './storage-error.js';

const { O_RDWR } = constants;

/**
 * On Windows, virus scanners and indexers hold new files briefly: rename and unlink are retried for
 * this long.
 */
const MAX_BUSY_MS = 2000;
const RETRY_MS = 50;

/**
 * Runs `action` and returns its result. On Windows, retries it for 2 s while another program holds
 * the file.
 */
async function retryWhileBusy<T>(action: () => Promise<T>): Promise<T> {
  for (let waitedMs = 0; ; waitedMs += RETRY_MS) {
    try {
      return await action();
    } catch (error) {
      const isBusy =
        process.platform === 'win32' && ['EPERM', 'EBUSY', 'EACCES'].includes(systemCode(error) ?? '');
      if (!isBusy || waitedMs >= MAX_BUSY_MS) throw error;
      await sleep(RETRY_MS);
    }
  }
}

/** Returns whether `path` is a device, a pipe or a socket, which a rename must not replace. */
export function isSpecialFile(path: string): boolean {
  const stat = ifExists(`stat ${path}`, () => statSync(path));
  return stat !== undefined && !stat.isFile() && !stat.isDirectory();
}

/** Returns whether `path` is a named pipe. @throws PullError as `storageError` */
export function isFifo(path: string): boolean {
  return ifExists(`stat ${path}`, () => statSync(path))?.isFIFO() === true;
}

/**
 * Refuses a device or a pipe as the target of an output that needs random access and a rename.
 * @throws PullError `option-malformed`
 */
export function refuseSpecialFile(path: string): void {
  if (!isSpecialFile(path)) return;
  throw new PullError('option-malformed', `${path} is a device or a pipe, not a file`, {
    hint: 'name a file',
  });
}

/**
 * Renames a file, replacing an existing one, or a directory.
 * @throws PullError as `storageError`
 */
export async function moveFile(from: string, to: string, doing = `rename ${from} to ${to}`): Promise<void> {
  await wrapFsErrorAsync(doing, async () => {
    const [holder, target] = [openGuarded(dirname(from)), openGuarded(dirname(to))];
    try {
      await retryWhileBusy(() => rename(holder.at(basename(from)), target.at(basename(to))));
    } finally {
      holder.close();
      target.close();
    }
  });
}

/** As `moveFile`, synchronously; an absent file is no error. @throws PullError as `storageError` */
export function moveFileSync(from: string, to: string): void {
  ifExists(`rename ${from} to ${to}`, () =>
    withGuarded(from, (a) => withGuarded(to, (b) => renameSync(a, b))),
  );
}

/** Deletes a file; an absent file is no error. @throws PullError as `storageError` */
export async function removeFile(path: string): Promise<void> {
  await wrapFsErrorAsync(`delete ${path}`, async () => {
    try {
      await withGuardedAsync(path, (at) => retryWhileBusy(() => unlink(at)));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  });
}

/** As `removeFile`, synchronously. @throws PullError as `storageError` */
export function removeFileSync(path: string): void {
  ifExists(`delete ${path}`, () => withGuarded(path, unlinkSync));
}

/**
 * Makes a directory's entries survive a power cut, as `syncFile`. Does nothing on Windows.
 * @throws PullError as `storageError`
 */
export async function syncDirectory(path: string, onLoss?: () => void): Promise<void> {
  if (process.platform === 'win32') return;
  await wrapFsErrorAsync(`sync ${path} to the disk`, async () => {
    const directory = await openDirectoryAsync(path);
    await syncAndClose(directory, onLoss);
  });
}

/** As `syncDirectory`, synchronously. @throws PullError as `storageError` */
export function syncDirectorySync(path: string): void {
  if (process.platform === 'win32') return;
  wrapFsError(`sync ${path} to the disk`, () => {
    const fd = openDirectory(path);
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  });
}

/**
 * Makes a file's bytes survive a power cut.
 * @param onLoss called if the sync fails, but not if the file cannot be opened
 * @throws PullError as `storageError`
 */
export async function syncFile(path: string, onLoss?: () => void): Promise<void> {
  await wrapFsErrorAsync(`sync ${path} to the disk`, async () => {
    await syncAndClose(await openFileAsync(path, O_RDWR), onLoss);
  });
}

async function syncAndClose(file: FileHandle, onLoss: () => void = () => {}): Promise<void> {
  try {
    await file.sync();
  } catch (error) {
    onLoss();
    throw error;
  } finally {
    await file.close();
  }
}

/** A file that is written under a temporary name and then renamed. */
interface AtomicFile {
  /**
   * Writes the bytes and renames the file: readers see the complete file or the previous one.
   * @param durable bytes and name survive a power cut once the promise resolves
   * @throws PullError as `storageError`; `store-broken` if the temporary file was deleted meanwhile
   */
  publish(bytes: Uint8Array, durable: boolean): Promise<void>;
  /** Closes the file, and deletes it unless it was published. */
  discard(): Promise<void>;
}

/**
 * Creates `PATH.HEX.tmp`, with 16 hex digits, to be published as `path`.
 * @throws PullError as `storageError`
 */
export async function createAtomically(path: string): Promise<AtomicFile> {
  const temporary = `${path}.${randomBytes(8).toString('hex')}.tmp`;
  const file = await wrapFsErrorAsync(`write ${path}`, () =>
    withGuardedAsync(temporary, (at) => openFileAsync(temporary, NEW_FILE, at)),
  );
  let isPublished = false;
  return {
    async publish(bytes, durable) {
      await wrapFsErrorAsync(`write ${bytes.length} bytes to ${path}`, async () => {
        await file.writeFile(bytes);
        if (durable) await file.sync();
        await file.close();
      });
      await moveFile(temporary, path);
      isPublished = true;
      if (durable) await syncDirectory(dirname(path));
    },
    async discard() {
      await file.close();
      if (!isPublished) await removeFile(temporary).catch(() => undefined);
    },
  };
}

/**
 * Writes `path` as `AtomicFile.publish` does. After an error, tries to delete the temporary file.
 * @throws as `publish`
 */
export async function writeAtomically(path: string, bytes: Uint8Array, durable: boolean): Promise<void> {
  const file = await createAtomically(path);
  try {
    await file.publish(bytes, durable);
  } finally {
    await file.discard();
  }
}
