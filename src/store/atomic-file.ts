import { randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { type FileHandle, rename, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { holdDirectory, within, withinAsync } from '../files/guarded-directory.js';
import { NEW_FILE, openDirectory, openDirectoryAsync, openFileAsync } from '../files/open-file.js';
import { ifExists, systemCode, wrapFsError, wrapFsErrorAsync } from '../files/storage-error.js';
import { PullError } from '../format/error.js';

const { O_RDWR } = constants;

/** On Windows a virus scanner or indexer holds new files for moments: rename and unlink are tried for this long. */
const PATIENCE_MS = 2000;
const PAUSE_MS = 50;

/** What `action` resolves to; on Windows it is tried again for 2 s while another program holds the file. */
async function patiently<T>(action: () => Promise<T>): Promise<T> {
  for (let waitedMs = 0; ; waitedMs += PAUSE_MS) {
    try {
      return await action();
    } catch (error) {
      const held =
        process.platform === 'win32' && ['EPERM', 'EBUSY', 'EACCES'].includes(systemCode(error) ?? '');
      if (!held || waitedMs >= PATIENCE_MS) throw error;
      await sleep(PAUSE_MS);
    }
  }
}

/** Whether there is something at `path` that is no plain file and no directory: a device or a pipe, which no rename may replace. */
export function isSpecialFile(path: string): boolean {
  const stat = ifExists(`look at ${path}`, () => statSync(path));
  return stat !== undefined && !stat.isFile() && !stat.isDirectory();
}

/** Whether there is a named pipe at `path`. @throws PullError as `storageError` */
export function isFifo(path: string): boolean {
  return ifExists(`look at ${path}`, () => statSync(path))?.isFIFO() === true;
}

/**
 * Refuses a device or a pipe where a file is to be written in many places at once, and then renamed.
 * @throws PullError `option-malformed`
 */
export function refuseSpecialFile(path: string): void {
  if (!isSpecialFile(path)) return;
  throw new PullError('option-malformed', `${path} is a device or a pipe, not a file`, {
    hint: 'name a file',
  });
}

/** Renames a file over whatever is there, or a directory where nothing is. @throws PullError as `storageError` */
export async function moveFile(from: string, to: string, doing = `rename ${from} to ${to}`): Promise<void> {
  await wrapFsErrorAsync(doing, async () => {
    const [holder, target] = [holdDirectory(dirname(from)), holdDirectory(dirname(to))];
    try {
      await patiently(() => rename(holder.at(basename(from)), target.at(basename(to))));
    } finally {
      holder.close();
      target.close();
    }
  });
}

/** As `moveFile`, where nothing can be waited for; what is not there is not renamed. @throws PullError as `storageError` */
export function moveFileSync(from: string, to: string): void {
  ifExists(`rename ${from} to ${to}`, () => within(from, (a) => within(to, (b) => renameSync(a, b))));
}

/** Deletes a file; one that is not there is deleted already. @throws PullError as `storageError` */
export async function removeFile(path: string): Promise<void> {
  await wrapFsErrorAsync(`delete ${path}`, async () => {
    try {
      await withinAsync(path, (at) => patiently(() => unlink(at)));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  });
}

/** As `removeFile`, where nothing can be waited for. @throws PullError as `storageError` */
export function removeFileSync(path: string): void {
  ifExists(`delete ${path}`, () => within(path, unlinkSync));
}

/** Makes a directory's entries survive a power cut, as `syncFile` does. Windows has no such call. @throws PullError as `storageError` */
export async function syncDirectory(path: string, onLoss?: () => void): Promise<void> {
  if (process.platform === 'win32') return;
  await wrapFsErrorAsync(`sync ${path} to the disk`, async () => {
    const directory = await openDirectoryAsync(path);
    await syncAndClose(directory, onLoss);
  });
}

/** As `syncDirectory`, where nothing can be waited for. @throws PullError as `storageError` */
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
 * Makes a file's bytes survive a power cut. `onLoss` is called when they do not, but not when the file cannot even be opened.
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

/** A file that is made under another name, and gets its own all at once. */
interface UnnamedFile {
  /**
   * Whoever looks at its name finds the whole file, what was there before, or nothing. `durable`: the bytes have survived a power cut when
   * the promise resolves, and the name never stands for less.
   * @throws PullError as `storageError`; `store-broken` when somebody has deleted it meanwhile
   */
  publish(bytes: Uint8Array, durable: boolean): Promise<void>;
  /** Leaves nothing behind, unless it was published. */
  discard(): Promise<void>;
}

/** Makes a file that is to be at `path`: `PATH.HEX.tmp`, with 16 hex digits. @throws PullError as `storageError` */
export async function beginAtomically(path: string): Promise<UnnamedFile> {
  const temporary = `${path}.${randomBytes(8).toString('hex')}.tmp`;
  const file = await wrapFsErrorAsync(`write ${path}`, () =>
    withinAsync(temporary, (at) => openFileAsync(temporary, NEW_FILE, at)),
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

/** Puts `bytes` at `path` all at once, as `UnnamedFile.publish` does; after an error nothing is left behind. @throws PullError as that */
export async function writeAtomically(path: string, bytes: Uint8Array, durable: boolean): Promise<void> {
  const file = await beginAtomically(path);
  try {
    await file.publish(bytes, durable);
  } finally {
    await file.discard();
  }
}
