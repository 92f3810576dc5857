import { closeSync, constants, fstatSync } from 'node:fs';
import { withGuarded } from './guarded-directory.js';
import { NEW_FILE, openFile, UnfitFile, unlessUnfit } from './open-file.js';

/**
 * A file that this process created or adopted, in a directory where others may rename things:
 * opened again, it must be the same file. Plain strings, which can be sent to threads.
 */
export interface OwnFile {
  readonly path: string;
  /** Device and inode. */
  readonly identity: string;
}

/**
 * Creates a file that must not exist, and calls `use` with it.
 * @throws the system's own errors, EEXIST among them
 */
export function makeOwnFile(path: string, use: (fd: number) => void = () => {}): OwnFile {
  return withFile(path, NEW_FILE, (fd) => {
    use(fd);
    return { path, identity: identityOf(fd) };
  });
}

/**
 * Returns the file that an earlier process of this user left under a name: a regular file without
 * other names that belongs to `owner`, the owner of files that this user creates there. Returns
 * undefined for anything else, which another user may have put there.
 * @throws the system's own errors, except for a missing file
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
    // A file that this user may not write belongs to another user, or is of no use.
    if (['ENOENT', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/**
 * Opens the same file again.
 * @throws UnfitFile if something else has its name by now, and the system's own errors
 */
export function openOwnFile({ path, identity }: OwnFile, flags: number = constants.O_RDONLY): number {
  const fd = withGuarded(path, (at) => openFile(path, flags, at));
  if (identityOf(fd) === identity) return fd;
  closeSync(fd);
  throw new UnfitFile(path, 'is another file than the one that was made here');
}

/** Calls `use` with the same file, opened. @throws as `openOwnFile`, and what `use` throws */
export function withOwnFile<T>(file: OwnFile, flags: number, use: (fd: number) => T): T {
  const fd = openOwnFile(file, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function withFile<T>(path: string, flags: number, use: (fd: number) => T): T {
  const fd = withGuarded(path, (at) => openFile(path, flags, at));
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Inodes have 64 bits on some file systems. */
function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev} ${ino}`;
}
