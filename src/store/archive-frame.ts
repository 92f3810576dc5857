import { open } from 'node:fs/promises';
import type { ArchivePlan } from '../format/tar-archive.js';
import { onDiskAsync, writeFully } from './storage-error.js';

/**
 * Puts the headers of an archive into their places, and the first members' contents; the others go there by themselves.
 * `flags`: `wx` for a file that is made, `r+` for one that is there and has its length.
 * @throws PullError as `storageError`
 */
export async function writeArchiveFrame(
  path: string,
  flags: 'wx' | 'r+',
  plan: ArchivePlan,
  contents: readonly Buffer[],
): Promise<void> {
  await onDiskAsync(`write ${path}`, async () => {
    const file = await open(path, flags);
    try {
      if (flags === 'wx') await file.truncate(plan.sizeBytes);
      for (const [row, { header, headerStart, contentStart }] of plan.members.entries()) {
        writeFully(file.fd, path, header, headerStart);
        const bytes = contents[row];
        if (bytes !== undefined) writeFully(file.fd, path, bytes, contentStart);
      }
    } finally {
      await file.close();
    }
  });
}
