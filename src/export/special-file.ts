import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFifo } from '../files/atomic-file.js';
import { changedByOthers } from '../files/open-directory.js';
import { systemCode, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { SpecialFile } from '../pool/messages.js';

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
