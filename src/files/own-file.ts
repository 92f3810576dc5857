import { closeSync, constants, fstatSync } from 'node:fs';
import { within } from './guarded-directory.js';
import { NEW_FILE, openFile, UnfitFile, unlessUnfit } from './open-file.js';

/**
 * A file that this process made or took up, in a directory where others may rename things: opened again, it must be the same one.
 * Plain strings, so that it travels between threads.
 */
export interface OwnFile {
  readonly path: string;
  /** Device and inode. */
  readonly identity: string;
}

/**
 * Makes a file that was not there, with `use` for what is to be done with it at once.
 * @throws the system's own errors, EEXIST among them
 */
export function makeOwnFile(path: string, use: (fd: number) => void = () => {}): OwnFile {
  return withFile(path, NEW_FILE, (fd) => {
    use(fd);
    return { path, identity: identityOf(fd) };
  });
}

/**
 * The file that an earlier process of this user left under a name: a regular one, with no other name, that belongs to `owner`, the
 * owner of files that this user makes there. Undefined for anything else, which another user may have put there.
 * @throws the system's own errors, but for nothing under this name
 */
export function findOwnFile(path: string, owner: number): OwnFile | undefined {
  try {
    return unlessUnfit(() =>
      withFile(path, constants.O_RDWR, (fd) => {
        const { uid, nlink } = fstatSync(fd);
        if (uid !== owner || nlink > 1) return undefined;
        return { path, identity: identityOf(fd) };
      }),
    );
  } catch (error) {
    // A file that this user may not write is another user's, or of no use.
    if (['ENOENT', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** Opens the same file again. @throws UnfitFile when something else has its name by now, and the system's own errors */
export function openOwnFile({ path, identity }: OwnFile, flags: number = constants.O_RDONLY): number {
  const fd = within(path, (at) => openFile(path, flags, at));
  if (identityOf(fd) === identity) return fd;
  closeSync(fd);
  throw new UnfitFile(path, 'is another file than the one that was made here');
}

/** `use` of the same file, opened. @throws as `openOwnFile`, and what `use` throws */
export function withOwnFile<T>(file: OwnFile, flags: number, use: (fd: number) => T): T {
  const fd = openOwnFile(file, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function withFile<T>(path: string, flags: number, use: (fd: number) => T): T {
  const fd = within(path, (at) => openFile(path, flags, at));
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Inodes of some file systems have 64 bits. */
function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev} ${ino}`;
}
