import { readFileSync, renameSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Digest, digestHex } from '../format/digest.js';
import { DEAD_MS, type Lease } from './leases.js';
import { makeDirectory } from './make-directory.js';
import type { StorePaths } from './paths.js';
import { onDisk, systemCode, unlessAbsent } from './storage-error.js';

/** Somebody else may take a lock that one has just found to be nobody's; then there is another to look at. */
const MOST_TRIES = 3;

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
    onDisk(`make ${paths.locks}`, () => makeDirectory(paths.locks));
  }

  /** Takes the lock of a layer, if nobody who lives has it; whether it is ours. @throws PullError as `storageError` */
  tryLock(diffId: Digest): boolean {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (this.#create(diffId)) {
        this.#held.add(diffId);
        return true;
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
    // Made a moment ago by somebody who is about to write his name, or dead since then.
    const stat = unlessAbsent(`look at ${path}`, () => statSync(path));
    return stat !== undefined && this.#lease.renewedMs() - stat.mtimeMs <= DEAD_MS;
  }

  /** Gives a lock back; one that is not ours (any more) stays. @throws PullError as `storageError` */
  release(diffId: Digest): void {
    if (!this.#held.delete(diffId)) return;
    const path = this.#path(diffId);
    if (readHolder(path) === this.#lease.id) unlessAbsent(`delete ${path}`, () => unlinkSync(path));
  }

  /** Gives all locks back. @throws PullError as `storageError` */
  releaseAll(): void {
    for (const diffId of [...this.#held]) this.release(diffId);
  }

  #path(diffId: Digest): string {
    return join(this.#paths.locks, digestHex(diffId));
  }

  #create(diffId: Digest): boolean {
    const path = this.#path(diffId);
    return onDisk(`create ${path}`, () => {
      try {
        writeFileSync(path, this.#lease.id, { flag: 'wx' });
        return true;
      } catch (error) {
        if (systemCode(error) === 'EEXIST') return false;
        // On a full disk the file may be there, without a name in it: it would hold up others.
        rmSync(path, { force: true });
        throw error;
      }
    });
  }

  /**
   * Deletes a lock that is nobody's. It is moved aside first and looked at once more: somebody else may have cleared it
   * and taken it meanwhile; his is put back.
   */
  #clear(diffId: Digest): void {
    const path = this.#path(diffId);
    const aside = `${path}.${this.#lease.id}.tmp`;
    unlessAbsent(`rename ${path}`, () => renameSync(path, aside));
    const holder = readHolder(aside);
    if (holder === undefined) return;
    const lives = holder !== '' && this.#lease.living().has(holder);
    unlessAbsent(`rename ${aside}`, () => (lives ? renameSync(aside, path) : unlinkSync(aside)));
  }
}

/** The lease that a lock names, empty while it is being written; undefined if there is no lock. */
function readHolder(path: string): string | undefined {
  return unlessAbsent(`read ${path}`, () => readFileSync(path, 'utf8'));
}
