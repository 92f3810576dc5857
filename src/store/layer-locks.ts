import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { moveFileSync, removeFileSync } from '../files/atomic-file.js';
import { makeGuarded, withGuarded } from '../files/guarded-directory.js';
import { NEW_FILE, openFile, readIfExists, statName, unlessUnfit } from '../files/open-file.js';
import { systemCode, wrapFsError, writeFully } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { Lease } from './leases.js';
import type { StorePaths } from './paths.js';

/** Another process may acquire a lock right after its stale predecessor was removed. */
const MAX_ATTEMPTS = 3;

/** A lock holds the 32 digits of a lease. */
const MAX_LOCK_BYTES = 64;

/** The holder of a file that is not a valid lock. */
const NO_HOLDER = '-';

/**
 * Advisory locks on layers, by DiffID. They keep two processes from fetching the same bytes;
 * nothing depends on them for correctness. A lock is a file with the id of its holder's lease, and
 * is stale when that lease is dead.
 */
export class LayerLocks {
  readonly #paths: Pick<StorePaths, 'locks'>;
  readonly #lease: Lease;
  readonly #held = new Set<Digest>();

  /** @throws PullError as `storageError` */
  constructor(paths: Pick<StorePaths, 'locks'>, lease: Lease) {
    this.#paths = paths;
    this.#lease = lease;
    wrapFsError(`create ${paths.locks}`, () => makeGuarded(paths.locks));
  }

  /**
   * Returns whether this process still holds a lock: others may have removed it as stale.
   * @throws PullError as `storageError`
   */
  holds(diffId: Digest): boolean {
    return this.#held.has(diffId) && readHolder(this.#path(diffId)) === this.#lease.id;
  }

  /**
   * Acquires the lock of a layer unless a live process holds it; returns whether it did.
   * @throws PullError as `storageError`
   */
  tryLock(diffId: Digest): boolean {
    for (let tries = 0; tries < MAX_ATTEMPTS; tries++) {
      if (this.#create(this.#path(diffId), this.#lease.id)) {
        this.#held.add(diffId);
        // Others may have removed the lock as stale if this process was suspended before it wrote
        // the id.
        if (this.holds(diffId)) return true;
        this.#held.delete(diffId);
      }
      if (this.isLocked(diffId)) return false;
      this.#removeStale(diffId);
    }
    return false;
  }

  /**
   * Returns whether a live process holds the lock of a layer.
   * @throws PullError as `storageError`
   */
  isLocked(diffId: Digest): boolean {
    const path = this.#path(diffId);
    const holder = readHolder(path);
    if (holder === undefined) return false;
    if (holder !== '') return this.#lease.liveIds().has(holder);
    // The process that created it is about to write its id, or died before it could.
    return !this.#lease.isAbandoned(path);
  }

  /**
   * Releases a lock; leaves it alone if another process holds it.
   * @throws PullError as `storageError`
   */
  release(diffId: Digest): void {
    if (!this.#held.delete(diffId)) return;
    const path = this.#path(diffId);
    if (readHolder(path) === this.#lease.id) removeFileSync(path);
  }

  /** Releases all locks. @throws PullError as `storageError` */
  releaseAll(): void {
    for (const diffId of [...this.#held]) this.release(diffId);
  }

  #path(diffId: Digest): string {
    return join(this.#paths.locks, digestHex(diffId));
  }

  /** Creates a lock for a lease; returns false if the file exists. */
  #create(path: string, holder: string): boolean {
    return wrapFsError(`create ${path}`, () => {
      let fd: number;
      try {
        fd = withGuarded(path, (at) => openFile(path, NEW_FILE, at));
      } catch (error) {
        if (systemCode(error) === 'EEXIST') return false;
        throw error;
      }
      try {
        writeFully(fd, path, Buffer.from(holder), 0);
        return true;
      } catch (error) {
        // On a full disk the file is empty and would block others.
        removeFileSync(path);
        throw error;
      } finally {
        closeSync(fd);
      }
    });
  }

  /**
   * Deletes a stale lock. Renames it first and reads it again, since another process may have
   * replaced it meanwhile. Such a lock is then created again, unless a third process holds one by
   * now.
   */
  #removeStale(diffId: Digest): void {
    const path = this.#path(diffId);
    const aside = `${path}.${this.#lease.id}.tmp`;
    requireNoDirectory(path);
    moveFileSync(path, aside);
    const holder = readHolder(aside);
    if (holder === undefined) return;
    if (holder !== '' && this.#lease.liveIds().has(holder)) this.#create(path, holder);
    removeFileSync(aside);
  }
}

/**
 * Returns the lease id in a lock, '' while it is being written, NO_HOLDER for an invalid file,
 * undefined without a file.
 */
function readHolder(path: string): string | undefined {
  return unlessUnfit(() => readIfExists(path, MAX_LOCK_BYTES)?.toString('latin1'), NO_HOLDER);
}

/**
 * A directory under the lock's name prevents the lock, and nothing in the store removes
 * directories.
 */
function requireNoDirectory(path: string): void {
  if (wrapFsError(`stat ${path}`, () => statName(path))?.isDirectory() !== true) return;
  throw new PullError('store-broken', `the lock ${path} is a directory`, {
    hint: 'Find out who put it there, then remove it.',
  });
}
