import { createHash, randomBytes } from 'node:crypto';
import { type Stats, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { syncDirectorySync } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { guardDirectory, listNames, makeDirectory, makeGuarded } from '../files/guarded-directory.js';
import { statName, UnfitFile } from '../files/open-file.js';
import { ifExists, isDenied, wrapFsError } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';

declare const brand: unique symbol;

/** 32 lower-case hex digits: the name of a pack, drawn at random and never used again. */
export type PackId = string & { readonly [brand]: 'PackId' };

/** Bytes of a pack's name: two of 2^64 packs would be needed to meet by chance. */
export const PACK_ID_BYTES = 16;

/** The directories of a store. Plain strings, so that it travels between threads. */
export interface StorePaths {
  readonly root: string;
  readonly packs: string;
  readonly layers: string;
  readonly images: string;
  readonly blobs: string;
  /** Made at their first use: a store that cannot be written may lack them. */
  readonly locks: string;
  readonly leases: string;
  /** Nothing is written there, and nothing deleted. */
  readonly isReadOnly: boolean;
}

/** The version of the on-disk format (docs/store-format.md), and the directory that holds all of it. */
const VERSION = 'v1';

/** Where things are in the store under `root`. Touches no disk; all of these directories are guarded in this thread. */
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
 * The store under `root`, its directories made if they are not there, in such a way that they survive a power cut. The root is
 * for its user alone (0700, as the XDG base directory specification asks). Directories of other versions beside ours are left
 * alone.
 * @param warn is called, at most once, with a sentence about other users who own the store
 * @throws PullError `store-broken` if the store has only versions that this program does not know, or one of its directories is
 *   a link; `store-denied` if everybody may write in one; `option-malformed` for a root behind a link of another user as `followLinks`;
 *   else as `storageError`
 */
export function openStore(root: string, warn: (message: string) => void = () => {}): StorePaths {
  const paths = storePaths(root);
  const { packs, layers, images, blobs } = paths;
  // Refused before anything is made there.
  const known = checkStore(paths, warn);
  const changed = new Set<string>();
  wrapFsError(`make the store ${root}`, () => {
    const first = known.has(root) ? undefined : makeDirectory(root, 0o700);
    if (first !== undefined) for (const parent of parentsOf(root, first)) changed.add(parent);
    for (const path of [packs, layers, images, blobs])
      if (!known.has(path)) for (const made of makeGuarded(path)) changed.add(resolve(dirname(made)));
  });
  for (const path of changed) syncParent(path);
  return paths;
}

/**
 * The store under `root` for somebody who only looks at it: nothing is made or changed there. One that is not there is empty.
 * @param warn as of `openStore`
 * @throws PullError as `openStore`
 */
export function openStoreToRead(root: string, warn: (message: string) => void = () => {}): StorePaths {
  const paths = storePaths(root, true);
  checkStore(paths, warn);
  return paths;
}

/** Which directories of a store are there. @throws PullError as `openStore` */
function checkStore(paths: StorePaths, warn: (message: string) => void): ReadonlySet<string> {
  const { root, packs, layers, images, blobs, locks, leases } = paths;
  const version = dirname(packs);
  wrapFsError(`look at ${root}`, () => followLinks(root));
  const below = [version, dirname(blobs), root, packs, layers, images, blobs, locks, leases];
  const known = checkDirectories(root, below, warn);
  if (!known.has(version)) refuseOtherVersions(root);
  return known;
}

function refuseOtherVersions(root: string): void {
  const isVersion = (name: string) => /^v[0-9]+$/.test(name);
  const versions = ifExists(`read the store ${root}`, () => listNames(root, isVersion, 'directories')) ?? [];
  // Another process may have made ours since it was looked for.
  if (versions.length === 0 || versions.includes(VERSION)) return;
  throw new PullError(
    'store-broken',
    `the store ${root} has the format ${versions.join(', ')}, not ${VERSION}`,
    {
      hint: 'Use the version of zpull that wrote it, or choose another place with --store.',
    },
  );
}

/** The directories that got a new name when `path` was made, of which `first` was the first to be made. */
function parentsOf(path: string, first: string): string[] {
  const parents: string[] = [];
  const top = resolve(first);
  for (let made = resolve(path); made.length >= top.length; made = dirname(made)) parents.push(dirname(made));
  return parents;
}

/** A directory in which this user may make names and not read them cannot be synced. */
function syncParent(path: string): void {
  try {
    syncDirectorySync(path);
  } catch (error) {
    if (!isDenied(error)) throw error;
  }
}

/** A name for a new pack. */
export function newPackId(): PackId {
  return randomBytes(PACK_ID_BYTES).toString('hex') as PackId;
}

/** Whether `text` is the name of a pack. Only a checked name becomes part of a path. */
export function isPackId(text: unknown): text is PackId {
  return typeof text === 'string' && /^[0-9a-f]{32}$/.test(text);
}

/** The pieces of a pack. */
export function packPath(paths: StorePaths, id: PackId): string {
  return join(paths.packs, `${id}.pack`);
}

/** The index of a pack: sealed, or open while the pack may grow. */
export function indexPath(paths: StorePaths, id: PackId, sealed: boolean): string {
  return join(paths.packs, sealed ? `${id}.idx` : `${id}.idx.open`);
}

/** The runs of a pack that proved false. */
export function badRunsPath(paths: StorePaths, id: PackId): string {
  return join(paths.packs, `${id}.bad`);
}

/** The layer record of a DiffID. */
export function layerRecordPath(paths: StorePaths, diffId: Digest): string {
  return join(paths.layers, digestHex(diffId));
}

/** Where `store verify` puts a layer record that failed. */
export function damagedRecordPath(paths: StorePaths, diffId: Digest): string {
  return `${layerRecordPath(paths, diffId)}.damaged`;
}

/** The image record of a reference and a platform: their hash is a name that every file system takes. */
export function imageRecordPath(paths: StorePaths, reference: string, platform: string): string {
  const name = createHash('sha256').update(`${reference}\n${platform}`).digest('hex');
  return join(paths.images, `${name}.json`);
}

/** A kept blob. */
export function blobPath(paths: StorePaths, digest: Digest): string {
  return join(paths.blobs, digestHex(digest));
}

/** The right of others to write, in a mode (POSIX.1-2017, sys/stat.h: S_IWOTH). */
const WRITABLE_BY_ALL = 0o002;

/**
 * Looks at the directories of the store under `root`, itself one of them, as far as they are there. A user who may write in one can put
 * anything there, and take any file away. The group is trusted, as umask 002 gives it that right in many home directories, and so is
 * root, who may do everything.
 * @param warn is called, at most once, with a sentence about other users who own some of them
 * @returns those that are there
 * @throws PullError `store-broken` for a link, but for the root, and for what is no directory; `store-denied` where everybody may write;
 *   else as `storageError`
 */
function checkDirectories(
  root: string,
  directories: readonly string[],
  warn: (message: string) => void,
): ReadonlySet<string> {
  const found = new Map<string, Stats>();
  for (const path of directories) {
    const stat = path === root ? statRoot(root) : wrapFsError(`look at ${path}`, () => statName(path));
    if (stat === undefined) continue;
    if (!stat.isDirectory()) throw new UnfitFile(path, 'is a link or no directory');
    found.set(path, stat);
  }
  // Windows has neither these modes nor owners in them.
  if (process.geteuid !== undefined) checkOwners(root, found, process.geteuid(), warn);
  return new Set(found.keys());
}

function statRoot(root: string): Stats | undefined {
  return ifExists(`look at ${root}`, () => statSync(root));
}

function checkOwners(
  root: string,
  found: ReadonlyMap<string, Stats>,
  own: number,
  warn: (message: string) => void,
): void {
  const others = new Set<number>();
  for (const [path, { mode, uid }] of found) {
    if ((mode & WRITABLE_BY_ALL) !== 0) {
      throw new PullError('store-denied', `every user of this machine may write in ${path}`, {
        hint: `Take that right away (chmod o-w ${path}), or choose another place with --store.`,
      });
    }
    if (uid !== own && uid !== 0) others.add(uid);
  }
  if (others.size === 0) return;
  const users = [...others].map((uid) => `user ${uid}`).join(', ');
  warn(`the store ${root} belongs to ${users}, who can change what it holds`);
}
