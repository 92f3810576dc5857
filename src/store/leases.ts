import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeFileSync } from '../files/atomic-file.js';
import { listNames, makeGuarded, withGuarded } from '../files/guarded-directory.js';
import { NEW_FILE, openFile, statFile, statName } from '../files/open-file.js';
import { isProcessAlive, pidNamespaceId } from '../files/process-id.js';
import { isDenied, systemCode, UnfitFile, wrapFsError } from '../files/storage-error.js';
import type { StorePaths } from './paths.js';

/** What the holder of a lease does with the store. */
const KINDS: readonly LeaseKind[] = ['pull', 'export', 'verify', 'prune'];
/** What a process does with a store. */
export type LeaseKind = 'pull' | 'export' | 'verify' | 'prune';

/**
 * A lease that was not renewed for this long is dead if its process is gone. Bounds the wait for a
 * killed process.
 */
const GONE_MS = 2000;
/** Another process may remove the empty directory right after this one found or created it. */
const MAX_ATTEMPTS = 5;

/**
 * A lease tells other processes that this one uses the store or a layout: while a live lease
 * exists, they delete nothing that its holder may rely on. Correctness never depends on it.
 *
 * It is an empty file whose modification time is renewed every second through the descriptor that
 * created it. Ages are differences to the renewed time of this process's own lease, so that both
 * times are the file system's and the clocks of machines do not matter. A lease is dead if
 * `StaleFiles` says so, or after 2 s if no process has its PID. The PID is checked only if it is of
 * the same PID namespace, and never proves that a holder is alive.
 */
export class Lease {
  /** 32 random hex digits. */
  readonly id = randomBytes(16).toString('hex');
  readonly #directory: string;
  readonly #path: string;
  readonly #heartbeat: NodeJS.Timeout;
  readonly #stale = new StaleFiles();
  #fd: number;

  /**
   * Creates the directory, which must be guarded, if it is missing.
   * @throws PullError as `storageError`
   */
  constructor(paths: Pick<StorePaths, 'leases'>, kind: LeaseKind) {
    this.#directory = paths.leases;
    this.#path = join(paths.leases, `${this.id}.${kind}.${process.pid}.${pidNamespaceId()}`);
    this.#fd = wrapFsError(`create ${this.#path}`, () => this.#create());
    // Synchronous: in libuv's pool it would wait behind decodes and syncs.
    this.#heartbeat = setInterval(() => this.#onHeartbeat(), RENEW_MS).unref();
  }

  /** The user id of files that this process creates in the directory. */
  get owner(): number {
    return fstatSync(this.#fd).uid;
  }

  /** Returns the kinds of the other live leases. @throws PullError as `storageError` */
  otherKinds(): LeaseKind[] {
    return this.#list().flatMap(({ id, kind, isAlive }) => (id !== this.id && isAlive ? [kind] : []));
  }

  /** Returns the ids of all live leases, this one included. @throws PullError as `storageError` */
  liveIds(): Set<string> {
    return new Set(this.#list().flatMap(({ id, isAlive }) => (isAlive ? [id] : [])));
  }

  /**
   * Renews the lease. Returns its new modification time in milliseconds.
   * @throws PullError as `storageError`
   */
  renew(): number {
    return wrapFsError(`write ${this.#path}`, () => {
      this.#write();
      return fstatSync(this.#fd).mtimeMs;
    });
  }

  /**
   * Waits until the next check can tell whether leases that look stale are dead.
   * @throws PullError as `storageError`
   */
  async awaitStale(): Promise<void> {
    this.#list();
    // Timers may fire a millisecond early.
    if (this.#stale.hasSuspects) await sleep(CONFIRM_MS + 10);
  }

  /**
   * Returns whether the process that created an empty file died before it wrote to it; false
   * without a file.
   * @throws PullError as `storageError`
   */
  isAbandoned(path: string): boolean {
    const stat = statFile(path);
    return stat !== undefined && this.#stale.isDead(path, stat.mtimeMs, this.renew());
  }

  /** Deletes dead leases. @throws PullError as `storageError` */
  removeDeadLeases(): void {
    for (const { path, isAlive } of this.#list()) if (!isAlive) removeFileSync(path);
  }

  /** Releases the lease. */
  close(): void {
    clearInterval(this.#heartbeat);
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    removeFileSync(this.#path);
  }

  #list(): { id: string; kind: LeaseKind; path: string; isAlive: boolean }[] {
    const nowMs = this.renew();
    const names = wrapFsError(`read ${this.#directory}`, () => listNames(this.#directory));
    return names.flatMap((name) => {
      const [, id, word, pid, namespace] =
        /^([0-9a-f]{32})\.([a-z]+)\.([1-9][0-9]{0,9})\.([0-9a-f]*)$/.exec(name) ?? [];
      const kind = KINDS.find((known) => known === word);
      const path = join(this.#directory, name);
      const stat = statFile(path);
      if (id === undefined || kind === undefined || stat === undefined) return [];
      const isLate = Math.abs(nowMs - stat.mtimeMs) > GONE_MS;
      const isGone = isLate && namespace === pidNamespaceId() && !isProcessAlive(Number(pid));
      return [{ id, kind, path, isAlive: !isGone && !this.#stale.isDead(path, stat.mtimeMs, nowMs) }];
    });
  }

  #create(): number {
    for (let tries = 1; ; tries++) {
      try {
        return this.#createFile();
      } catch (error) {
        if (systemCode(error) !== 'ENOENT' || tries === MAX_ATTEMPTS) throw error;
        makeGuarded(this.#directory);
      }
    }
  }

  /**
   * Ignores errors: the next heartbeat follows, and a lease that others take for dead costs a
   * download at most. A timer must not end the process when others replace the directory; the work
   * itself fails then.
   */
  #onHeartbeat(): void {
    try {
      this.#write();
    } catch (error) {
      if (systemCode(error) === undefined && !(error instanceof UnfitFile)) throw error;
    }
  }

  #createFile(): number {
    return withGuarded(this.#path, (at) => openFile(this.#path, NEW_FILE, at));
  }

  /**
   * Renews the modification time by changing the length (POSIX.1-2017, ftruncate). Creates the file
   * again if others deleted it as dead.
   */
  #write(): void {
    if (statName(this.#path) === undefined) {
      const fd = this.#createFile();
      closeSync(this.#fd);
      this.#fd = fd;
    }
    try {
      ftruncateSync(this.#fd, 1);
    } catch (error) {
      // A full disk without sparse files. On Linux, setting the same length changes the time too.
      if (!['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')) throw error;
    }
    ftruncateSync(this.#fd, 0);
  }
}

/**
 * Runs `work` under a lease and returns its result. A store that this user cannot write to is used
 * without a lease: files that another process deletes meanwhile are then found missing.
 * @throws PullError as `storageError`, and what `work` throws
 */
export async function withLease<T>(paths: StorePaths, kind: LeaseKind, work: () => Promise<T>): Promise<T> {
  const lease = leaseIfWritable(paths, kind);
  try {
    return await work();
  } finally {
    lease?.close();
  }
}

function leaseIfWritable(paths: StorePaths, kind: LeaseKind): Lease | undefined {
  try {
    return new Lease(paths, kind);
  } catch (error) {
    if (isDenied(error)) return undefined;
    throw error;
  }
}

/** The interval of renewals. Many may fail or be late before a lease counts as dead. */
const RENEW_MS = 1000;

/** A file that was not renewed for longer is stale: its holder may be dead. */
const STALE_MS = 15_000;

/** A live holder renews its file within this time, one late renewal included. */
const CONFIRM_MS = 2 * RENEW_MS;

/**
 * Files that a live holder renews. A holder is dead if its file is stale in two checks at least
 * CONFIRM_MS apart and was not renewed in between. A single check does not suffice: after the clock
 * was set or the machine has slept, every file looks stale.
 */
class StaleFiles {
  /** `atMs` is of the monotonic clock, which stops while the machine sleeps. */
  readonly #suspects = new Map<string, { readonly mtimeMs: number; readonly atMs: number }>();

  /** Whether a file was stale in one check and needs a second one. */
  get hasSuspects(): boolean {
    return this.#suspects.size > 0;
  }

  /**
   * Returns whether the holder of a file is dead; `mtimeMs` and `nowMs` are of the file system's
   * clock.
   */
  isDead(path: string, mtimeMs: number, nowMs: number): boolean {
    // A clock that was set back leaves times in the future.
    if (Math.abs(nowMs - mtimeMs) <= STALE_MS) {
      this.#suspects.delete(path);
      return false;
    }
    const suspect = this.#suspects.get(path);
    if (suspect?.mtimeMs === mtimeMs) return performance.now() - suspect.atMs >= CONFIRM_MS;
    this.#suspects.set(path, { mtimeMs, atMs: performance.now() });
    return false;
  }
}
