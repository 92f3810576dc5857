import { rmdirSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { guardPath, makeDirectory, makeGuarded, withGuarded } from '../files/guarded-directory.js';
import { statName } from '../files/open-file.js';
import { canHoldDirectory } from '../files/resolve-path.js';
import { systemCode, wrapFsError } from '../files/storage-error.js';
import { parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { POLL_MS } from '../pull/layer.js';
import type { Stop } from '../pull/pull-context.js';
import { LayerLocks } from '../store/layer-locks.js';
import { Lease } from '../store/leases.js';

/**
 * In the layout, while a copy writes to it. Leases and the lock are in the same directory: while
 * there is a lease it is not empty, so that a copy that ends cannot remove it while another one
 * begins.
 */
export const LOCK_DIRECTORY = '.zpull';

/** The key of the only lock of a destination: a digest that no blob has. */
const DESTINATION = parseDigest(`sha256:${'0'.repeat(64)}`, 'lock');

/** An acquired lock. */
export interface DestinationLock {
  /** The owner of files that this user creates there, on some mounts another user. */
  readonly owner: number;
  /**
   * Whether it is still held: other processes take it if this one seems dead.
   * @throws PullError as `storageError`
   */
  readonly isHeld: () => boolean;
  /** Acquires it again, as `lockDestination` does. */
  readonly reacquire: () => Promise<void>;
  /** Releases it. */
  readonly close: () => void;
}

/**
 * Acquires the lock of a copy's destination in `directory`, a path from `followLinks`. Waits while
 * another live copy holds it, and then calls `onWait` once. A copy holds the lock from beginning to
 * end, as it looks for blobs at its beginning and names them at its end.
 * @throws PullError the reason of a stop; `option-malformed` when the lock is another user's; as
 *   `storageError`
 */
export async function lockDestination(
  directory: string,
  stop: Stop,
  onWait: () => void,
): Promise<DestinationLock> {
  if (stop.reason !== undefined) throw stop.reason;
  const parent = guardPath(dirname(directory));
  guardPath(parent, basename(directory));
  wrapFsError(`make ${parent}`, () =>
    canHoldDirectory() ? makeGuarded(parent, 0o777) : makeDirectory(parent),
  );
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
    await acquire(locks, lease, stop, onWait);
  } catch (error) {
    release();
    throw error;
  }
  const acquired = locks;
  return {
    owner: lease.owner,
    isHeld: () => acquired.holds(DESTINATION),
    reacquire: () => acquire(acquired, lease, stop, onWait),
    close: release,
  };
}

async function acquire(locks: LayerLocks, lease: Lease, stop: Stop, onWait: () => void): Promise<void> {
  if (locks.tryLock(DESTINATION)) return;
  await stop.guard(lease.awaitStale());
  if (locks.tryLock(DESTINATION)) return;
  onWait();
  // No request is in flight meanwhile: karma's clock is paused.
  do await stop.guard(sleep(POLL_MS));
  while (!locks.tryLock(DESTINATION));
}

/**
 * A user who can write to the directory of the lock can block this copy for ever, or let two copies
 * write at once.
 */
function requireOwnDirectory(directory: string, owner: number): void {
  const stat = wrapFsError(`stat ${directory}`, () => statName(directory));
  if (stat === undefined || process.geteuid === undefined) return;
  if (stat.uid === owner && (stat.mode & 0o002) === 0) return;
  throw new PullError(
    'option-malformed',
    `${directory}, the lock of a copy, belongs to or can be written by other users`,
    {
      hint: 'remove it when no copy runs there, or choose another destination',
    },
  );
}

/** A directory that stays does no harm, and the next copy tries again. */
function removeIfEmpty(directory: string): void {
  try {
    withGuarded(directory, rmdirSync);
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
  }
}
