import { rmdirSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  canHoldDirectory,
  guardPath,
  makeDirectory,
  makeGuarded,
  withGuarded,
} from '../files/guarded-directory.js';
import { statName } from '../files/open-file.js';
import { systemCode, wrapFsError } from '../files/storage-error.js';
import { parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { POLL_MS } from '../pull/missing-layers.js';
import type { Stop } from '../pull/stop.js';
import { LayerLocks } from '../store/layer-locks.js';
import { Lease } from '../store/leases.js';

/**
 * In the layout, while somebody copies into it. Leases and the lock lie in it together: while there is a lease it is not
 * empty, and nobody who goes can take it from under one who comes.
 */
export const LOCK_DIRECTORY = '.zpull';

/** The one lock of a destination, by a digest that no blob has. */
const DESTINATION = parseDigest(`sha256:${'0'.repeat(64)}`, 'lock');

/** A lock that is held. */
export interface DestinationLock {
  /** To whom files belong that this user makes there: on some mounts to somebody else. */
  readonly owner: number;
  /** Whether it is still held: others may have taken it when they thought this process dead. @throws PullError as `storageError` */
  readonly isHeld: () => boolean;
  /** Takes it once more, as `lockDestination` does. */
  readonly reacquire: () => Promise<void>;
  /** Gives it back. */
  readonly close: () => void;
}

/**
 * Takes the lock of a copy's destination, which lies in `directory`, a path from `followLinks`; waits while another copy, which lives, has it: all of a copy is
 * under the lock, since blobs are looked for at its start and get their names at its end. `onWait` is called once, if at all.
 * @throws PullError the reason of a stop; `option-malformed` when the lock is another user's; as `storageError`
 */
export async function lockDestination(
  directory: string,
  stop: Stop,
  onWait: () => void,
): Promise<DestinationLock> {
  if (stop.reason !== undefined) throw stop.reason;
  const place = guardPath(dirname(directory));
  guardPath(place, basename(directory));
  wrapFsError(`make ${place}`, () => (canHoldDirectory() ? makeGuarded(place, 0o777) : makeDirectory(place)));
  const lease = new Lease({ leases: directory }, 'pull');
  let locks: LayerLocks | undefined;
  const release = () => {
    try {
      locks?.releaseAll();
      lease.removeDeadLeases();
    } finally {
      lease.close();
    }
    removeIfEmpty(directory);
  };
  try {
    requireOwnDirectory(directory, lease.owner);
    locks = new LayerLocks({ locks: directory }, lease);
    await take(locks, lease, stop, onWait);
  } catch (error) {
    release();
    throw error;
  }
  const held = locks;
  return {
    owner: lease.owner,
    isHeld: () => held.holds(DESTINATION),
    reacquire: () => take(held, lease, stop, onWait),
    close: release,
  };
}

async function take(locks: LayerLocks, lease: Lease, stop: Stop, onWait: () => void): Promise<void> {
  if (locks.tryLock(DESTINATION)) return;
  await stop.guard(lease.awaitStale());
  if (locks.tryLock(DESTINATION)) return;
  onWait();
  // Nobody asks a server meanwhile: karma's clock stands still.
  do await stop.guard(sleep(POLL_MS));
  while (!locks.tryLock(DESTINATION));
}

/** A user who may write beside the lock can hold up this copy for ever, or let two copies write at a time. */
function requireOwnDirectory(directory: string, owner: number): void {
  const stat = wrapFsError(`stat ${directory}`, () => statName(directory));
  if (stat === undefined || process.geteuid === undefined) return;
  if (stat.uid === owner && (stat.mode & 0o002) === 0) return;
  throw new PullError(
    'option-malformed',
    `${directory}, the lock of a copy, is in the hands of other users`,
    {
      hint: 'Remove it when no copy is under way there, or choose another destination.',
    },
  );
}

/** One that stays harms nobody, and the next copy tries again. */
function removeIfEmpty(directory: string): void {
  try {
    withGuarded(directory, rmdirSync);
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
  }
}
