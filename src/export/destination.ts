import { lstatSync, readdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { refuseSpecialFile } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { ifExists, outsideStore, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';

/**
 * What stands where a directory is to be.
 * @throws PullError `option-malformed` for a directory with something in it, unless `force` allows it, and for what is none
 */
export function lookAtDirectory(path: string, force: boolean): 'absent' | 'empty' | 'full' {
  if (!requireDirectory(path)) return 'absent';
  if (look(path, () => readdirSync(path)).length === 0) return 'empty';
  if (force) return 'full';
  throw notEmpty(path);
}

/** The error for a directory that has something in it. */
export function notEmpty(path: string): PullError {
  return new PullError('option-malformed', `${path} is not empty`, {
    hint: 'Name a directory that is empty or not there, or replace what has the same names with --force.',
  });
}

/**
 * Whether a directory is there, or a link to one.
 * @throws PullError `option-malformed` for anything else, a link to nothing as well, and for a link of another user as `followLinks`
 */
export function requireDirectory(path: string): boolean {
  look(path, () => followLinks(path));
  if (isDirectory(path)) return true;
  if (lookFor(path, () => lstatSync(path)) === undefined) return false;
  throw new PullError('option-malformed', `${path} is not a directory`, {
    hint: 'Check that this is the destination you mean, and name a directory, or what is not there yet.',
  });
}

/** @throws PullError `option-malformed` for what no rename makes a file of: a directory, a device, a pipe */
export function requireFile(path: string): void {
  requirePlace(path);
  refuseSpecialFile(path);
}

/**
 * @throws PullError `option-malformed` for a directory, where none is to hold what is not there yet, and for a link of another user on
 *   the way to it as `followLinks`
 */
export function requirePlace(path: string): void {
  look(path, () => followLinks(dirname(path)));
  if (isDirectory(path)) {
    throw new PullError('option-malformed', `${path} is a directory, not a file`, {
      hint: 'Check that this is the destination you mean, and name a file.',
    });
  }
  const holder = dirname(path);
  if (isDirectory(holder)) return;
  throw new PullError('option-malformed', `${path} cannot be made: ${holder} is not a directory`, {
    hint: 'Check that this is the destination you mean, and make that directory.',
  });
}

function isDirectory(path: string): boolean {
  return lookFor(path, () => statSync(path))?.isDirectory() === true;
}

/** As `look`; undefined when nothing is there. */
function lookFor<T>(path: string, action: () => T): T | undefined {
  return look(path, () => ifExists(`stat ${path}`, action));
}

/** What `action` finds out about a path outside the store. @throws PullError as `storageError` */
export function look<T>(path: string, action: () => T): T {
  try {
    return wrapFsError(`stat ${path}`, action);
  } catch (error) {
    throw outsideStore(error);
  }
}

/**
 * Refuses a destination that no export can end well at, for whoever wants to know before a pull.
 * @throws PullError `option-malformed`, as the exports do, and as `storageError` when it cannot be looked at
 */
export function checkDestination(
  scheme: 'tar' | 'rootfs' | 'layers' | 'docker-archive',
  path: string,
  force: boolean,
): void {
  const place = resolve(path);
  if (scheme === 'rootfs') lookAtDirectory(place, force);
  else if (scheme === 'layers') requireDirectory(place);
  else if (scheme === 'docker-archive') requireFile(place);
  else requirePlace(place);
}
