import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFifo, refuseSpecialFile } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { changedByOthers } from '../files/open-directory.js';
import { ifExists, outsideStore, systemCode, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { SpecialFile } from '../pool/messages.js';

/**
 * Returns the state of a path that is to become a directory.
 * @throws PullError `option-malformed` for a directory with entries, unless `force` allows it, and
 *   for anything that is not a directory
 */
export function inspectDirectory(path: string, force: boolean): 'absent' | 'empty' | 'full' {
  if (!requireDirectory(path)) return 'absent';
  if (inspect(path, () => readdirSync(path)).length === 0) return 'empty';
  if (force) return 'full';
  throw notEmpty(path);
}

/** Returns the error for a directory with entries. */
export function notEmpty(path: string): PullError {
  return new PullError('option-malformed', `${path} is not empty`, {
    hint: 'Name a directory that is empty or does not exist, or overwrite files of the same names with --force.',
  });
}

/**
 * Returns whether a path is a directory or a link to one; false when it does not exist.
 * @throws PullError `option-malformed` for anything else, a dangling link included; as
 *   `followLinks` for a link of another user
 */
export function requireDirectory(path: string): boolean {
  inspect(path, () => followLinks(path));
  if (isDirectory(path)) return true;
  if (inspectIfExists(path, () => lstatSync(path)) === undefined) return false;
  throw new PullError('option-malformed', `${path} is not a directory`, {
    hint: 'Check that this is the destination you mean, and name a directory, or a path that does not exist.',
  });
}

/**
 * @throws PullError `option-malformed` for a path that no file can replace: a directory, a device,
 *   a pipe
 */
export function requireFile(path: string): void {
  requireCreatable(path);
  refuseSpecialFile(path);
}

/**
 * Requires that a path can become a file: it is no directory and its parent directory exists.
 * @throws PullError `option-malformed`; as `followLinks` for a link of another user on the way
 */
export function requireCreatable(path: string): void {
  inspect(path, () => followLinks(dirname(path)));
  if (isDirectory(path)) {
    throw new PullError('option-malformed', `${path} is a directory, not a file`, {
      hint: 'Check that this is the destination you mean, and name a file.',
    });
  }
  const parent = dirname(path);
  if (isDirectory(parent)) return;
  throw new PullError('option-malformed', `${path} cannot be created: ${parent} is not a directory`, {
    hint: 'Check that this is the destination you mean, and create that directory.',
  });
}

function isDirectory(path: string): boolean {
  return inspectIfExists(path, () => statSync(path))?.isDirectory() === true;
}

/** Same as `inspect`; undefined when the path does not exist. */
function inspectIfExists<T>(path: string, action: () => T): T | undefined {
  return inspect(path, () => ifExists(`stat ${path}`, action));
}

/** Returns what `action` reads about a path outside the store.
 * @throws PullError as `storageError` */
export function inspect<T>(path: string, action: () => T): T {
  try {
    return wrapFsError(`stat ${path}`, action);
  } catch (error) {
    throw outsideStore(error);
  }
}

/** Time for a user or a script to start the reader of a pipe. */
const READER_LIMIT_MS = 60_000;

/** Interval at which a pipe without a reader is opened again. */
const POLL_MS = 100;

/**
 * O_NONBLOCK, as a thread in a blocking call cannot be ended: writes fail with EAGAIN instead.
 * O_NOCTTY, so that no terminal becomes the controlling one.
 */
const FLAGS = constants.O_WRONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/**
 * Opens a device or a pipe for writes that fail with EAGAIN instead of blocking. Waits up to
 * `limitMs` for a reader of a pipe.
 * @throws PullError `option-malformed` when a pipe has no reader; `store-broken` for a path that
 *   has become a file or a link, which is left alone; as `storageError`
 */
export async function openSpecialFile(file: SpecialFile, limitMs = READER_LIMIT_MS): Promise<number> {
  const { path } = file;
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const fd = wrapFsError(`open ${path}`, () => openUnlessUnread(file));
    if (fd !== undefined) return checked(fd, path);
    if (waitedMs >= limitMs) {
      throw new PullError('option-malformed', `the pipe ${path} has no reader`, {
        hint: `Start its reader within ${Math.ceil(limitMs / 1000)} s, or name a file.`,
      });
    }
    await sleep(POLL_MS);
  }
}

/** Returns the descriptor, or undefined for a pipe without a reader. */
function openUnlessUnread({ at, follows }: SpecialFile): number | undefined {
  try {
    return openSync(at, FLAGS | (follows ? 0 : (constants.O_NOFOLLOW ?? 0)));
  } catch (error) {
    // Sockets and missing devices fail with ENXIO, too, but permanently.
    if (systemCode(error) !== 'ENXIO' || !isFifo(at)) throw error;
    return undefined;
  }
}

function checked(fd: number, path: string): number {
  if (!fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw changedByOthers(path);
}
