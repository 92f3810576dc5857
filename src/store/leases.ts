import { createHash, randomBytes } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeFileSync } from '../files/atomic-file.js';
import { listNames, makeGuarded, within } from '../files/guarded-directory.js';
import { NEW_FILE, openFile, statFile, statName, UnfitFile } from '../files/open-file.js';
import { isDenied, systemCode, wrapFsError } from '../files/storage-error.js';
import type { StorePaths } from './paths.js';

/** What a process does with the store meanwhile. */
const KINDS = ['pull', 'export', 'verify', 'prune'] as const;
export type LeaseKind = (typeof KINDS)[number];

/** Silent for longer, and no process has its number any more: who was killed is not waited for longer than this. */
const GONE_MS = 2000;
/** Whoever goes may remove an empty directory just after it was found or made here. */
const MAX_ATTEMPTS = 5;

/**
 * Says that a process uses the store, or a layout: an empty file whose time of change is renewed every second while the
 * process lives, by the descriptor that it was made with: what others put under its name is never written. Nothing depends
 * on it for being right; while there is one, nothing is deleted that its holder may count on. Times are compared with that
 * of one's own lease, a moment after renewing it: both are the file system's, whatever the clocks of two machines say. One
 * look never proves that a holder is dead (see `SilentFiles`), unless its process is gone. The
 * number of a process is asked for only where it means the same (the holder may run in another container), and never
 * proves that one lives.
 */
export class Lease {
  /** 32 hex digits, drawn at random. */
  readonly id = randomBytes(16).toString('hex');
  readonly #directory: string;
  readonly #path: string;
  readonly #beating: NodeJS.Timeout;
  readonly #silent = new SilentFiles();
  #fd: number;

  /** The directory is a guarded one, and made if it is not there. @throws PullError as `storageError` */
  constructor(paths: Pick<StorePaths, 'leases'>, kind: LeaseKind) {
    this.#directory = paths.leases;
    this.#path = join(paths.leases, `${this.id}.${kind}.${process.pid}.${pidNamespaceId()}`);
    this.#fd = wrapFsError(`create ${this.#path}`, () => this.#create());
    // Not in libuv's pool, where it would wait behind decodes and syncs.
    this.#beating = setInterval(() => this.#beat(), BEAT_MS).unref();
  }

  /** To whom files belong that this process makes there. */
  get owner(): number {
    return fstatSync(this.#fd).uid;
  }

  /** What the others do that hold a lease and live. @throws PullError as `storageError` */
  others(): LeaseKind[] {
    return this.#list().flatMap(({ id, kind, isAlive }) => (id !== this.id && isAlive ? [kind] : []));
  }

  /** Which leases are held by a process that lives, by `id`. @throws PullError as `storageError` */
  living(): Set<string> {
    return new Set(this.#list().flatMap(({ id, isAlive }) => (isAlive ? [id] : [])));
  }

  /** The time of the file system, in its milliseconds. @throws PullError as `storageError` */
  renew(): number {
    return wrapFsError(`write ${this.#path}`, () => {
      this.#write();
      return fstatSync(this.#fd).mtimeMs;
    });
  }

  /** Waits, if a lease is silent, until another look tells whether its holder is dead. @throws PullError as `storageError` */
  async awaitSilent(): Promise<void> {
    this.#list();
    // Timers may be a millisecond early.
    if (this.#silent.areThere) await sleep(LOOKS_APART_MS + 10);
  }

  /**
   * Whether a file that its maker should have written to at once is left over from one that is dead; false when it is not there.
   * @throws PullError as `storageError`
   */
  isAbandoned(path: string): boolean {
    const stat = wrapFsError(`look at ${path}`, () => statFile(path));
    return stat !== undefined && this.#silent.isDead(path, stat.mtimeMs, this.renew());
  }

  /** Deletes what dead processes have left. @throws PullError as `storageError` */
  removeDeadLeases(): void {
    for (const { path, isAlive } of this.#list()) if (!isAlive) removeFileSync(path);
  }

  /** Gives it back. */
  close(): void {
    clearInterval(this.#beating);
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    removeFileSync(this.#path);
  }

  #list(): { id: string; kind: LeaseKind; path: string; isAlive: boolean }[] {
    const nowMs = this.renew();
    const names = wrapFsError(`read ${this.#directory}`, () => listNames(this.#directory));
    return names.flatMap((name) => {
      const [, id, word, pid, place] =
        /^([0-9a-f]{32})\.([a-z]+)\.([1-9][0-9]{0,9})\.([0-9a-f]*)$/.exec(name) ?? [];
      const kind = KINDS.find((known) => known === word);
      const path = join(this.#directory, name);
      const stat = wrapFsError(`look at ${path}`, () => statFile(path));
      if (id === undefined || kind === undefined || stat === undefined) return [];
      const isQuiet = Math.abs(nowMs - stat.mtimeMs) > GONE_MS;
      const isGone = isQuiet && place === pidNamespaceId() && !isProcessAlive(Number(pid));
      return [{ id, kind, path, isAlive: !isGone && !this.#silent.isDead(path, stat.mtimeMs, nowMs) }];
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
   * One that fails is followed by another; if all do, others think us dead, which costs a download at most. What others put in the
   * directory's place may not end the process from within a timer: the work itself meets it, too.
   */
  #beat(): void {
    try {
      this.#write();
    } catch (error) {
      if (systemCode(error) === undefined && !(error instanceof UnfitFile)) throw error;
    }
  }

  #createFile(): number {
    return within(this.#path, (at) => openFile(this.#path, NEW_FILE, at));
  }

  /**
   * A new length changes the time (POSIX.1-2017, ftruncate). A lease that others have taken for dead and deleted is made once
   * more.
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
      // A disk that is full and knows no holes; on Linux the old length changes the time as well.
      if (!['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')) throw error;
    }
    ftruncateSync(this.#fd, 0);
  }
}

/**
 * What `work` resolves to, under a lease while it runs. A store that this user cannot write is read without: nobody is
 * told then, and what goes meanwhile is found missing.
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

/** How often who uses a store or a layout renews its lease. Many beats may fail or be late before others think it dead. */
const BEAT_MS = 1000;

/** Silent for longer: its process may be gone. */
const SILENT_MS = 15_000;

/** A holder that lives renews its file between two looks that are so far apart, one late beat included. */
const LOOKS_APART_MS = 2 * BEAT_MS;

/**
 * Files that are renewed while their holder lives. A holder is dead when its file is silent on two looks, a beat apart, and was not renewed
 * in between: on one look every holder seems dead after the clock was set, or after the machine has slept.
 */
class SilentFiles {
  /** By the monotonic clock, which stands still while the machine sleeps. */
  readonly #firstLooks = new Map<string, { readonly mtimeMs: number; readonly atMs: number }>();

  /** Whether there is a file of which only another look can tell. */
  get areThere(): boolean {
    return this.#firstLooks.size > 0;
  }

  /** Whether the holder of a file is dead, that was written at `mtimeMs` and looked at at `nowMs`, by the clock of the file system. */
  isDead(path: string, mtimeMs: number, nowMs: number): boolean {
    // Both ways: a clock that was set back leaves times of the future behind.
    if (Math.abs(nowMs - mtimeMs) <= SILENT_MS) {
      this.#firstLooks.delete(path);
      return false;
    }
    const first = this.#firstLooks.get(path);
    if (first?.mtimeMs === mtimeMs) return performance.now() - first.atMs >= LOOKS_APART_MS;
    this.#firstLooks.set(path, { mtimeMs, atMs: performance.now() });
    return false;
  }
}

let place: string | undefined;

/** A name for where numbers of processes mean the same: this start of this system, this namespace. Empty where none is known. */
export function pidNamespaceId(): string {
  if (place === undefined) {
    try {
      const start = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
      const namespace = readlinkSync('/proc/self/ns/pid');
      place = createHash('sha256').update(start).update(namespace).digest('hex').slice(0, 16);
    } catch {
      place = '';
    }
  }
  return place;
}

/** Whether a process has this number; also true where nobody can tell. */
export function isProcessAlive(pid: number): boolean {
  if (pidNamespaceId() === '') return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}
