import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { moveFileSync, removeFileSync } from '../files/atomic-file.js';
import { makeGuarded, within } from '../files/guarded-directory.js';
import { NEW_FILE, openFile, readFile, statName, UnfitFile } from '../files/open-file.js';
import { ifExists, systemCode, wrapFsError, writeFully } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { Lease } from './leases.js';
import type { StorePaths } from './paths.js';

/** Somebody else may take a lock that one has just found to be nobody's; then there is another to look at. */
const MAX_ATTEMPTS = 3;

/** A lock names a lease of 32 digits, and nothing else. */
const MAX_LOCK_BYTES = 64;

/** What stands under a lock's name and is none: it names nobody. */
const NOBODY = '-';

/**
 * Locks on layers, by DiffID: they keep two processes from fetching the same bytes, and nothing else depends on them. A lock
 * is a file that names the lease of its holder; when that is dead, the lock counts for nothing.
 */
export class LayerLocks {
  readonly #paths: Pick<StorePaths, 'locks'>;
  readonly #lease: Lease;
  readonly #held = new Set<Digest>();

  /** @throws PullError as `storageError` */
  constructor(paths: Pick<StorePaths, 'locks'>, lease: Lease) {
    this.#paths = paths;
    this.#lease = lease;
    wrapFsError(`make ${paths.locks}`, () => makeGuarded(paths.locks));
  }

  /** Whether the lock of a layer is still held here: others may have taken it when they thought this process dead. @throws PullError as `storageError` */
  holds(diffId: Digest): boolean {
    return this.#held.has(diffId) && readHolder(this.#path(diffId)) === this.#lease.id;
  }

  /** Takes the lock of a layer, if nobody who lives has it; whether it is ours. @throws PullError as `storageError` */
  tryLock(diffId: Digest): boolean {
    for (let tries = 0; tries < MAX_ATTEMPTS; tries++) {
      if (this.#create(this.#path(diffId), this.#lease.id)) {
        this.#held.add(diffId);
        // A process that was stopped before it wrote its lease may have been thought dead.
        if (this.holds(diffId)) return true;
        this.#held.delete(diffId);
      }
      if (this.isLocked(diffId)) return false;
      this.#clear(diffId);
    }
    return false;
  }

  /** Whether somebody who lives has the lock of a layer. @throws PullError as `storageError` */
  isLocked(diffId: Digest): boolean {
    const path = this.#path(diffId);
    const holder = readHolder(path);
    if (holder === undefined) return false;
    if (holder !== '') return this.#lease.living().has(holder);
    // Made a moment ago by a process that is about to write its lease, or has died since.
    return !this.#lease.isAbandoned(path);
  }

  /** Gives a lock back; one that is not ours (any more) stays. @throws PullError as `storageError` */
  release(diffId: Digest): void {
    if (!this.#held.delete(diffId)) return;
    const path = this.#path(diffId);
    if (readHolder(path) === this.#lease.id) removeFileSync(path);
  }

  /** Gives all locks back. @throws PullError as `storageError` */
  releaseAll(): void {
    for (const diffId of [...this.#held]) this.release(diffId);
  }

  #path(diffId: Digest): string {
    return join(this.#paths.locks, digestHex(diffId));
  }

  /** Makes a lock, whose holder is a lease; false when there is one. */
  #create(path: string, holder: string): boolean {
    return wrapFsError(`create ${path}`, () => {
      let fd: number;
      try {
        fd = within(path, (at) => openFile(path, NEW_FILE, at));
      } catch (error) {
        if (systemCode(error) === 'EEXIST') return false;
        throw error;
      }
      try {
        writeFully(fd, path, Buffer.from(holder), 0);
        return true;
      } catch (error) {
        // On a full disk the file is there, without a name in it: it would hold up others.
        removeFileSync(path);
        throw error;
      } finally {
        closeSync(fd);
      }
    });
  }

  /**
   * Deletes a lock that is nobody's. It is moved aside first and looked at once more: another process may have cleared it
   * and taken it meanwhile. Its lock is made again then, unless a third one has taken it by now, which keeps it.
   */
  #clear(diffId: Digest): void {
    const path = this.#path(diffId);
    const aside = `${path}.${this.#lease.id}.tmp`;
    requireNoDirectory(path);
    moveFileSync(path, aside);
    const holder = readHolder(aside);
    if (holder === undefined) return;
    if (holder !== '' && this.#lease.living().has(holder)) this.#create(path, holder);
    removeFileSync(aside);
  }
}

/** The lease that a lock names, empty while it is being written, NOBODY for what is no lock; undefined if nothing is there. */
function readHolder(path: string): string | undefined {
  try {
    return ifExists(`read ${path}`, () => readFile(path, MAX_LOCK_BYTES))?.toString('latin1');
  } catch (error) {
    if (error instanceof UnfitFile) return NOBODY;
    throw error;
  }
}

/** Nothing in the store empties a directory, and while one has its name there can be no lock. */
function requireNoDirectory(path: string): void {
  if (wrapFsError(`look at ${path}`, () => statName(path))?.isDirectory() !== true) return;
  throw new PullError('store-broken', `the lock ${path} is a directory`, {
    hint: 'Find out who put it there, then remove it.',
  });
}
