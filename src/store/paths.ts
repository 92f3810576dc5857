import { createHash, randomBytes } from 'node:crypto';
import { type Stats, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { syncDirectorySync } from '../files/atomic-file.js';
import { guardDirectory, listNames, makeDirectory, makeGuarded } from '../files/guarded-directory.js';
import { statName } from '../files/open-file.js';
import { followLinks } from '../files/resolve-path.js';
import { ifExists, isDenied, UnfitFile, wrapFsError } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';

declare const brand: unique symbol;

/** The name of a pack: 32 random lower-case hex digits, never reused. */
export type PackId = string & { readonly [brand]: 'PackId' };

/** Bytes of a pack's name. A collision is likely only among 2^64 packs. */
export const PACK_ID_BYTES = 16;

/** What every task on a store takes. */
export interface StoreOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** Called with warnings about the store. */
  readonly warn?: (message: string) => void;
}

/** The directories of a store, as plain strings for messages between threads. */
export interface StorePaths {
  readonly root: string;
  readonly packs: string;
  readonly layers: string;
  readonly images: string;
  readonly blobs: string;
  /** Created at first use, so a store that this user cannot write to may lack them. */
  readonly locks: string;
  readonly leases: string;
  /** Nothing is written or deleted. */
  readonly isReadOnly: boolean;
}

/** The version of the on-disk format (docs/store-format.md) and the name of its directory. */
const VERSION = 'v1';

/**
 * Returns the directories of the store under `root` and guards them in this thread. Does no I/O.
 */
export function storePaths(root: string, isReadOnly = false): StorePaths {
  const below = (...steps: string[]) => guardDirectory(root, VERSION, ...steps);
  return {
    root,
    packs: below('packs'),
    layers: below('layers'),
    images: below('images'),
    blobs: below('blobs', 'sha256'),
    locks: below('locks'),
    leases: below('leases'),
    isReadOnly,
  };
}

/**
 * Opens the store under `root`, creating and syncing missing directories. A new root has mode 0700,
 * as the XDG base directory specification asks. Directories of other format versions are left
 * alone.
 * @param warn called at most once, with a sentence about other users who own the store
 * @throws PullError `option-malformed` without a root; `store-broken` if the store has only unknown versions or one of its directories
 *   is a link; `store-denied` if one is world-writable; `option-malformed` for a root behind
 *   another user's link as `followLinks`; else as `storageError`
 */
export function openStore(root: string, warn: (message: string) => void = () => {}): StorePaths {
  requireRoot(root);
  const paths = storePaths(root);
  const { packs, layers, images, blobs } = paths;
  // Refuses the store before anything is created in it.
  const known = checkStore(paths, warn);
  const changed = new Set<string>();
  wrapFsError(`create the store ${root}`, () => {
    const first = known.has(root) ? undefined : makeDirectory(root, 0o700);
    if (first !== undefined) for (const parent of parentsOf(root, first)) changed.add(parent);
    for (const path of [packs, layers, images, blobs])
      if (!known.has(path)) for (const made of makeGuarded(path)) changed.add(resolve(dirname(made)));
  });
  for (const path of changed) syncParent(path);
  return paths;
}

/**
 * Opens the store under `root` read-only: nothing is created or changed. An absent store is empty.
 * @param warn as for `openStore`
 * @throws PullError as `openStore`
 */
export function openStoreToRead(root: string, warn: (message: string) => void = () => {}): StorePaths {
  requireRoot(root);
  const paths = storePaths(root, true);
  checkStore(paths, warn);
  return paths;
}

/** Callers without types may pass anything. @throws PullError `option-malformed` */
function requireRoot(root: unknown): void {
  if (typeof root === 'string' && root !== '') return;
  throw new PullError(
    'option-malformed',
    `store must be the path of a directory, not ${JSON.stringify(root)}`,
    {
      hint: 'name the directory of the store',
    },
  );
}

/**
 * Checks the directories of a store and returns those that exist.
 * @throws PullError as `openStore`
 */
function checkStore(paths: StorePaths, warn: (message: string) => void): ReadonlySet<string> {
  const { root, packs, layers, images, blobs, locks, leases } = paths;
  const version = dirname(packs);
  wrapFsError(`stat ${root}`, () => followLinks(root));
  const below = [version, dirname(blobs), root, packs, layers, images, blobs, locks, leases];
  const known = checkDirectories(root, below, warn);
  if (!known.has(version)) refuseOtherVersions(root);
  return known;
}

function refuseOtherVersions(root: string): void {
  const isVersion = (name: string) => /^v[0-9]+$/.test(name);
  const versions = ifExists(`read the store ${root}`, () => listNames(root, isVersion, 'directories')) ?? [];
  // Another process may have created ours since the check.
  if (versions.length === 0 || versions.includes(VERSION)) return;
  throw new PullError(
    'store-broken',
    `the store ${root} has the format ${versions.join(', ')}, not ${VERSION}`,
    {
      hint: 'Use the version of zpull that wrote it, or choose another place with --store.',
    },
  );
}

/**
 * Returns the directories that got a new entry when `path` was created; `first` is its topmost new
 * directory.
 */
function parentsOf(path: string, first: string): string[] {
  const parents: string[] = [];
  const top = resolve(first);
  for (let made = resolve(path); made.length >= top.length; made = dirname(made)) parents.push(dirname(made));
  return parents;
}

/** A directory that this user can write to but not read cannot be opened for a sync. */
function syncParent(path: string): void {
  try {
    syncDirectorySync(path);
  } catch (error) {
    if (!isDenied(error)) throw error;
  }
}

/** Returns a name for a new pack. */
export function newPackId(): PackId {
  return randomBytes(PACK_ID_BYTES).toString('hex') as PackId;
}

/** Returns whether `text` is a pack's name, which is safe as a part of a path. */
export function isPackId(text: unknown): text is PackId {
  return typeof text === 'string' && /^[0-9a-f]{32}$/.test(text);
}

/** The bytes of a pack. */
export function packPath(paths: StorePaths, id: PackId): string {
  return join(paths.packs, `${id}.pack`);
}

/** The index of a sealed pack, or of one that may still grow. */
export function indexPath(paths: StorePaths, id: PackId, sealed: boolean): string {
  return join(paths.packs, sealed ? `${id}.idx` : `${id}.idx.open`);
}

/** The list of a pack's bad runs. */
export function badRunsPath(paths: StorePaths, id: PackId): string {
  return join(paths.packs, `${id}.bad`);
}

/** The layer record of a DiffID. */
export function layerRecordPath(paths: StorePaths, diffId: Digest): string {
  return join(paths.layers, digestHex(diffId));
}

/** The name that `zpull store verify` gives to the record of a damaged layer. */
export function damagedRecordPath(paths: StorePaths, diffId: Digest): string {
  return `${layerRecordPath(paths, diffId)}.damaged`;
}

/**
 * The image record of a reference and a platform, named by their hash, which is valid on every file
 * system.
 */
export function imageRecordPath(paths: StorePaths, reference: string, platform: string): string {
  const name = createHash('sha256').update(`${reference}\n${platform}`).digest('hex');
  return join(paths.images, `${name}.json`);
}

/** A stored blob. */
export function blobPath(paths: StorePaths, digest: Digest): string {
  return join(paths.blobs, digestHex(digest));
}

/** S_IWOTH (POSIX.1-2017, sys/stat.h). */
const WRITABLE_BY_ALL = 0o002;

/**
 * Checks type, mode and owner of the existing directories of the store; `root` is one of them.
 * A user who can write to one can replace any of its files. The group is trusted, since a umask of 002
 * makes many home directories writable for it, and so is root.
 * @param warn called at most once, with a sentence about other users who own directories
 * @returns the directories that exist
 * @throws PullError `store-broken` for a file or a link (the root may be a link); `store-denied`
 *   for a world-writable directory; else as `storageError`
 */
function checkDirectories(
  root: string,
  directories: readonly string[],
  warn: (message: string) => void,
): ReadonlySet<string> {
  const found = new Map<string, Stats>();
  for (const path of directories) {
    const look = () => (path === root ? statSync(root) : statName(path));
    const stat = ifExists(`stat ${path}`, look);
    if (stat === undefined) continue;
    if (!stat.isDirectory()) throw new UnfitFile(path, 'is a link or no directory');
    found.set(path, stat);
  }
  // Windows has neither these modes nor owners.
  if (process.geteuid !== undefined) checkOwners(root, found, process.geteuid(), warn);
  return new Set(found.keys());
}

function checkOwners(
  root: string,
  found: ReadonlyMap<string, Stats>,
  uid: number,
  warn: (message: string) => void,
): void {
  const others = new Set<number>();
  for (const [path, { mode, uid: owner }] of found) {
    if ((mode & WRITABLE_BY_ALL) !== 0) {
      throw new PullError('store-denied', `every user of this machine can write to ${path}`, {
        hint: `Run chmod o-w ${path}, or choose another place with --store.`,
      });
    }
    if (owner !== uid && owner !== 0) others.add(owner);
  }
  if (others.size === 0) return;
  const users = [...others].map((owner) => `user ${owner}`).join(', ');
  warn(`the store ${root} belongs to ${users}, who can change its contents`);
}
