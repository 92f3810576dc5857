import type { MessagePort } from 'node:worker_threads';
import type { SharedDirectory } from '../files/open-directory.js';
import type { Digest } from '../format/digest.js';
import type { ExtentRows } from '../store/extents.js';
import type { BlockTagRows, ExportedLayer, TreeRows } from './layer-tasks.js';

/** Tasks of `workers/export` that write a file system into a directory. */

/**
 * Flattens layers while they are being pulled. `port` receives `IncomingBytes`, and sends files as
 * their headers are read, as `FileBatch`, then `null`; the final file system may lack some of them.
 * The result is null if there are more entries than `maxEntries`, or if they make no file system.
 */
export interface FollowLayersTask {
  readonly task: 'follow-layers';
  /** Each layer once. */
  readonly diffIds: readonly Digest[];
  /** The image's layers as rows of `diffIds`, lowest first. */
  readonly order: readonly number[];
  readonly port: MessagePort;
  readonly maxEntries: number;
  /** Changed and notified after each message: the thread waits on it alone. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** The next bytes of a layer's tar, which are on disk; without `bytes`, the tar is complete. */
export interface IncomingBytes {
  /** Row of the task's `diffIds`. */
  readonly layer: number;
  readonly bytes?: { readonly tags: BlockTagRows; readonly extents: ExtentRows };
}

/** Files of one layer, in the order of its tar. */
export interface FileBatch {
  /** Row of the task's `diffIds`. */
  readonly layer: number;
  /** Rows without parents: their paths are those in the layer, without `.` or `..`. */
  readonly tree: TreeRows;
  /** Blocks with headers, ascending: the full blocks are still to be compared. */
  readonly blocks: readonly number[];
  /** The blocks of the layer that the files need, half-open. */
  readonly firstBlock: number;
  readonly endBlock: number;
  /** Offset in the tar of the end of the last content. */
  readonly endBytes: number;
}

/**
 * Writes files of a layer into a directory that no other user can change; leaves out those whose
 * path exists.
 */
export interface UnpackFilesTask extends Pick<FileBatch, 'tree' | 'blocks'> {
  readonly task: 'unpack-files';
  readonly layer: { readonly diffId: Digest; readonly tags: BlockTagRows };
  /** The part of the layer's tar with the files. */
  readonly extents: ExtentRows;
  /** The block at its start. */
  readonly firstBlock: number;
  readonly directory: SharedDirectory;
  readonly abilities: Abilities;
}

export interface UnpackFilesResult {
  /** By row: 1 for a file that was written. */
  readonly written: Uint8Array;
}

/** Files of one batch that were written before the final file system was known. */
export interface EarlyRows extends Pick<TreeRows, 'count' | 'contentStart' | 'text' | 'textEnd'> {
  /** Row of the layer in the `follow-layers` task. */
  readonly layer: number;
  /** By row: 1 for a file that was written. */
  readonly written: Uint8Array;
}

/**
 * Removes early files, and directories made for them, that the file system does not have at their
 * paths. The result: by row of the tree, 1 for a file that exists.
 */
export interface KeepFilesTask {
  readonly task: 'keep-files';
  readonly early: readonly EarlyRows[];
  readonly tree: TreeRows;
  /** For each layer of the tree, its number in the early rows. */
  readonly rowOf: readonly number[];
  readonly directory: SharedDirectory;
}

/** The IDs that files can be given; start and count of each range. */
export interface AssignableIds {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
  /**
   * Why no others can: this user namespace does not map them, or the user did not request owners.
   */
  readonly why: 'namespace' | 'not-requested';
}

/** What this process may do in a file system. */
export interface Abilities {
  /** The user of the process. */
  readonly uid: number;
  readonly umask: number;
  /** Whether it can change owners and make devices. */
  readonly owners: boolean;
  /** With `owners`: the IDs that it can give; absent for all. */
  readonly ids?: AssignableIds;
  /** Whether GNU tar is installed, for what Node has no call for. */
  readonly tar: boolean;
}

/** A step of writing a file system into a directory. */
export interface WriteTreeTask {
  readonly tree: TreeRows;
  readonly directory: SharedDirectory;
  /**
   * Inode numbers, by row, of directories that other users could replace: `make-directories` writes
   * them, and later steps refuse a directory with another one.
   */
  readonly inodes: BigUint64Array<SharedArrayBuffer>;
  readonly abilities: Abilities;
  /** Whether to remove what exists under a name in the tree. */
  readonly replace: boolean;
  /** Whether this export may have made directories already, where no other user can make any. */
  readonly begun: boolean;
}

/** Makes all directories, accessible to this user alone until `finish-files`. */
export interface MakeDirectoriesTask extends WriteTreeTask {
  readonly task: 'make-directories';
}

/** Writes the files and symbolic links in `rows`, except those that need GNU tar. */
export interface WriteFilesTask extends WriteTreeTask {
  readonly task: 'write-files';
  readonly rows: Uint32Array;
  /** Needed to write contents if the pool was started without layers. */
  readonly layers?: readonly ExportedLayer[];
}

/** Makes with GNU tar what Node cannot make. */
export interface WriteSpecialsTask extends WriteTreeTask {
  readonly task: 'write-specials';
  /** As in `WriteFilesTask`. */
  readonly layers?: readonly ExportedLayer[];
}

export interface WriteSpecialsResult {
  /** What tar could not do, in its words. */
  readonly warnings: readonly string[];
}

/**
 * Makes hard links, then sets modes, owners and times of all directories except the root. The last
 * step.
 */
export interface FinishFilesTask extends WriteTreeTask {
  readonly task: 'finish-files';
}

/**
 * Uses the layers of a pull while they are being pulled. Its methods run on the main thread and
 * must not throw.
 */
export interface LayerFollower {
  /** The layers of the image, lowest first. Called once, before any of them is pulled. */
  begin(diffIds: readonly Digest[]): void;
  /** Called before the first byte of some of them. */
  expect?(bytes: ExpectedBytes): Promise<void>;
  /**
   * Called for each attempt at a layer, before its first byte; `maxTarBytes` is an estimate of the
   * maximum length of its tar. Returns undefined if the follower does not use this attempt.
   */
  follow(diffId: Digest, maxTarBytes: number): FollowedLayer | undefined;
  /**
   * Called when the disk of the store is full. Resolves when the follower has removed what it
   * wrote, as far as possible.
   */
  makeRoom?(): Promise<void>;
}

/** An estimate of what the pull of some layers will write. */
export interface ExpectedBytes {
  readonly storeBytes: number;
  /** Total of the tars of known length. */
  readonly tarBytes: number;
}

/** One attempt at a layer; receives its tar as it is written to disk. */
export interface FollowedLayer {
  /** Receives the tags of the blocks when they are hashed. */
  readonly tags: BlockTagRows;
  /** The next bytes of the tar are on disk. */
  feed(extents: ExtentRows): void;
  /**
   * The complete tar is on disk. `isProven`: it has the DiffID, and its blocks agree with the tags.
   */
  end(isProven: boolean): void;
}
