import { rmdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseDigest } from '../format/digest.js';
import { LayerLocks } from '../store/layer-locks.js';
import { Lease } from '../store/leases.js';
import { systemCode } from '../store/storage-error.js';
import { LOOK_MS } from './missing-layers.js';
import type { Stop } from './stop.js';

/**
 * In the layout, while somebody copies into it. Leases and the lock lie in it together: while there is a lease it is not
 * empty, and nobody who goes can take it from under one who comes.
 */
export const LOCK_DIRECTORY = '.zpull';

/** The one lock of a destination, by a digest that no blob has. */
const DESTINATION = parseDigest(`sha256:${'0'.repeat(64)}`, 'lock');

/**
 * Takes the lock of a copy's destination, which lies in `directory`; waits while another copy, which lives, has it: all of a copy is
 * under the lock, since blobs are looked for at its start and get their names at its end. `onWait` is called once, if at all.
 * @returns gives the lock back
 * @throws PullError the reason of a stop; as `storageError`
 */
export async function lockDestination(
  directory: string,
  stop: Stop,
  onWait: () => void,
): Promise<() => void> {
  if (stop.reason !== undefined) throw stop.reason;
  const lease = new Lease({ leases: directory }, 'pull');
  const locks = new LayerLocks({ locks: directory }, lease);
  const release = () => {
    try {
      locks.releaseAll();
      lease.removeDead();
    } finally {
      lease.close();
    }
    removeIfEmpty(directory);
  };
  try {
    if (!locks.tryLock(DESTINATION)) {
      onWait();
      // Nobody asks a server meanwhile: karma's clock stands still.
      do await stop.guard(sleep(LOOK_MS));
      while (!locks.tryLock(DESTINATION));
    }
  } catch (error) {
    release();
    throw error;
  }
  return release;
}

/** One that stays harms nobody, and the next copy tries again. */
function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
  }
}
