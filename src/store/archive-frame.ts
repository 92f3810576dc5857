import { closeSync, constants, ftruncateSync } from 'node:fs';
import { NEW_FILE, openFile } from '../files/open-file.js';
import { type OwnFile, openOwnFile } from '../files/own-file.js';
import type { ArchivePlan } from '../format/tar-archive.js';
import { closeWritten, onDisk, writeFully } from './storage-error.js';

/**
 * Puts the headers of an archive into their places, and the first members' contents; the others go there by themselves. `target` is the
 * path of a file that is made, or a file that was made before and has its length.
 * @throws PullError as `storageError`
 */
export function writeArchiveFrame(
  target: string | OwnFile,
  plan: ArchivePlan,
  contents: readonly Buffer[],
): void {
  const isNew = typeof target === 'string';
  const path = isNew ? target : target.path;
  const fd = onDisk(`write ${path}`, () =>
    isNew ? openFile(path, NEW_FILE) : openOwnFile(target, constants.O_WRONLY),
  );
  try {
    if (isNew) onDisk(`write ${path}`, () => ftruncateSync(fd, plan.sizeBytes));
    for (const [row, { header, headerStart, contentStart }] of plan.members.entries()) {
      writeFully(fd, path, header, headerStart);
      const bytes = contents[row];
      if (bytes !== undefined) writeFully(fd, path, bytes, contentStart);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeWritten(fd, path);
}
