import { constants } from 'node:fs';
import { type OwnFile, withOwnFile } from '../files/own-file.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';
import type { ArchivePlan } from '../format/tar-writer.js';

/**
 * Puts the headers of an archive into their places in a file that was made before and has its length, and the first members' contents; the
 * others go there by themselves.
 * @throws PullError as `storageError`
 */
export function writeArchiveFrame(file: OwnFile, plan: ArchivePlan, contents: readonly Buffer[]): void {
  wrapFsError(`write ${file.path}`, () =>
    withOwnFile(file, constants.O_WRONLY, (fd) => writeFrame(fd, file.path, plan, contents)),
  );
}

/** The same in a file that is open; `path` is what messages call it. @throws PullError as `storageError` */
export function writeFrame(fd: number, path: string, plan: ArchivePlan, contents: readonly Buffer[]): void {
  for (const [row, { header, headerStart, contentStart }] of plan.members.entries()) {
    writeFully(fd, path, header, headerStart);
    const bytes = contents[row];
    if (bytes !== undefined) writeFully(fd, path, bytes, contentStart);
  }
}
