import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFifo, refuseSpecialFile } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { changedByOthers } from '../files/open-directory.js';
import { ifExists, outsideStore, systemCode, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { SpecialFile } from '../pool/messages.js';

/**
 * What stands where a directory is to be.
 * @throws PullError `option-malformed` for a directory with something in it, unless `force` allows it, and for what is none
 */
export function inspectDirectory(path: string, force: boolean): 'absent' | 'empty' | 'full' {
  if (!requireDirectory(path)) return 'absent';
  if (inspect(path, () => readdirSync(path)).length === 0) return 'empty';
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
  inspect(path, () => followLinks(path));
  if (isDirectory(path)) return true;
  if (inspectIfExists(path, () => lstatSync(path)) === undefined) return false;
  throw new PullError('option-malformed', `${path} is not a directory`, {
    hint: 'Check that this is the destination you mean, and name a directory, or what is not there yet.',
  });
}

/** @throws PullError `option-malformed` for what no rename makes a file of: a directory, a device, a pipe */
export function requireFile(path: string): void {
  requireCreatable(path);
  refuseSpecialFile(path);
}

/**
 * @throws PullError `option-malformed` for a directory, where none is to hold what is not there yet, and for a link of another user on
 *   the way to it as `followLinks`
 */
export function requireCreatable(path: string): void {
  inspect(path, () => followLinks(dirname(path)));
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
  return inspectIfExists(path, () => statSync(path))?.isDirectory() === true;
}

/** As `inspect`; undefined when nothing is there. */
function inspectIfExists<T>(path: string, action: () => T): T | undefined {
  return inspect(path, () => ifExists(`stat ${path}`, action));
}

/** What `action` finds out about a path outside the store. @throws PullError as `storageError` */
export function inspect<T>(path: string, action: () => T): T {
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
  if (scheme === 'rootfs') inspectDirectory(place, force);
  else if (scheme === 'layers') requireDirectory(place);
  else if (scheme === 'docker-archive') requireFile(place);
  else requireCreatable(place);
}

/** Whoever starts the reader of a pipe by hand, or a script that starts it next, needs less. */
const READER_LIMIT_MS = 60_000;

/** How often a pipe without a reader is tried again. */
const POLL_MS = 100;

/** A thread in a call that waits cannot be ended: neither the open nor a write waits (EAGAIN), and no terminal becomes this process's own. */
const FLAGS = constants.O_WRONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/**
 * Opens a device or a pipe for writes that give EAGAIN instead of waiting. A pipe without a reader is waited for, `limitMs` at most, by
 * timers alone.
 * @throws PullError `option-malformed` when nobody reads the pipe; `store-broken` for what is a file or a link by now: it is left as it
 *   is; as `storageError`
 */
export async function openSpecialFile(file: SpecialFile, limitMs = READER_LIMIT_MS): Promise<number> {
  const { path } = file;
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const fd = wrapFsError(`open ${path}`, () => openUnlessUnread(file));
    if (fd !== undefined) return checked(fd, path);
    if (waitedMs >= limitMs) {
      throw new PullError('option-malformed', `nobody reads the pipe ${path}`, {
        hint: `Start what reads it within ${Math.ceil(limitMs / 1000)} s, or name a file.`,
      });
    }
    await sleep(POLL_MS);
  }
}

/** The descriptor, or undefined for a pipe that nobody reads yet. */
function openUnlessUnread({ at, follows }: SpecialFile): number | undefined {
  try {
    return openSync(at, FLAGS | (follows ? 0 : (constants.O_NOFOLLOW ?? 0)));
  } catch (error) {
    // A socket and a device that is not there give ENXIO, too, and always will.
    if (systemCode(error) !== 'ENXIO' || !isFifo(at)) throw error;
    return undefined;
  }
}

function checked(fd: number, path: string): number {
  if (!fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw changedByOthers(path);
}
