import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { parse, sep } from 'node:path';

/**
 * Linux: a descriptor that stands for a place and needs no permission to read it (open(2); node:fs does not name it). The value
 * is the same on every architecture that Node runs on.
 */
const O_PATH = 0o10000000;

/** Opens whatever a path names, links followed, as a place. @throws the system's own errors, ENOTDIR for what is no directory */
export function openPlace(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY);
}

/** As `openPlace`, but a link at the end of the path is not followed. @throws as `openPlace`, ENOTDIR for such a link too */
export function openPlaceItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/** As `openPlace`, for an absolute path in which no step may be a link. @throws as `openPlaceItself` */
export function openPlaceWithoutLinks(path: string): number {
  const { root } = parse(path);
  let fd = openPlace(root);
  for (const step of path.slice(root.length).split(sep)) {
    if (step === '') continue;
    const holder = fd;
    try {
      fd = openPlaceItself(`${pathOfOpen(holder)}/${step}`);
    } finally {
      closeSync(holder);
    }
  }
  return fd;
}

/** Opens a symbolic link itself, or what else has this name, to be looked at and changed. @throws the system's own errors */
export function openLinkItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_NOFOLLOW);
}

/** A path to what is open, wherever that has been moved since. All threads of this process can use it. */
export function pathOfOpen(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

let canHold: boolean | undefined;

/** Whether `/proc/self/fd/N/NAME` is NAME in the directory that is open as N. Asked of the system once a thread. */
export function canHoldDirectories(): boolean {
  canHold ??= process.platform === 'linux' && leadsToOpenFiles();
  return canHold;
}

function leadsToOpenFiles(): boolean {
  const fd = openPlace('/');
  try {
    return existsSync(`${pathOfOpen(fd)}/.`);
  } finally {
    closeSync(fd);
  }
}
