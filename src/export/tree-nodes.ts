import { PullError } from '../format/error.js';
import type { SparseMap } from '../format/tar-sparse.js';
import { quoteBytes } from '../format/text.js';
import { DIRECTORY } from './file-tree.js';

/** Symbolic links that Linux follows in one path (path_resolution(7)). */
export const MAX_LINKS = 40;

/** Limit of nested directories: a path of PATH_MAX (4096) bytes cannot have more. */
const MAX_DEPTH = 2048;

/**
 * A file, directory, link or device, without its names. Strings are latin1: one character a byte.
 */
export interface Inode {
  readonly type: number;
  readonly layer: number;
  readonly contentStart: number;
  /** Length of the content, which lacks the holes of a sparse file. */
  readonly sizeBytes: number;
  readonly sparse: SparseMap | undefined;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** Target of a symbolic link. */
  readonly link: string;
  readonly xattrRecords: string;
  /** The first row that is written for it; -1 before. */
  row: number;
}

/** A name in a directory. */
export interface Node {
  inode: Inode;
  /** Entries of a directory; undefined for other types. */
  readonly directory: Directory | undefined;
  /** Cached target of a symbolic link. */
  target: Target | undefined;
}

/** The entries of a directory. */
export interface Directory {
  readonly names: Map<string, Node>;
  readonly parent: Directory | undefined;
  /** Number of directories above it. */
  readonly depth: number;
}

/** The directory to which a path or a symbolic link leads. */
export interface Target {
  readonly directory: Directory;
  /** Number of symbolic links on the way. */
  readonly links: number;
  /**
   * Value of `LayerTree.#losses` when the path was followed; the target is valid while both are
   * equal.
   */
  readonly losses: number;
}

/**
 * Inode of a directory without an entry. All such directories share it: its `row` is never used.
 */
export const IMPLIED: Inode = {
  type: DIRECTORY,
  layer: 0,
  contentStart: 0,
  sizeBytes: 0,
  sparse: undefined,
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  devMajor: 0,
  devMinor: 0,
  link: '',
  xattrRecords: '',
  row: -1,
};

/** @throws PullError `metadata-malformed` when directories are nested too deep */
export function newDirectory(parent: Directory | undefined): Directory {
  const depth = parent === undefined ? 0 : parent.depth + 1;
  if (depth > MAX_DEPTH) throw noFileSystem(`directories lie more than ${MAX_DEPTH} deep`);
  return { names: new Map(), parent, depth };
}

/** Sorts items by the depth of their paths, then by the bytes of these. */
export function shallowFirst<T>(items: readonly T[], pathOf: (item: T) => string): T[] {
  const keyed = items.map((item) => {
    const parts = partsOf(pathOf(item));
    return { item, depth: parts.length, path: parts.join('/') };
  });
  keyed.sort((a, b) => a.depth - b.depth || (a.path < b.path ? -1 : Number(a.path > b.path)));
  return keyed.map(({ item }) => item);
}

/** Splits a path into names and resolves `.` and `..`; `..` at the root is the root. */
export function partsOf(path: string): string[] {
  return normalize(path.split('/'));
}

/** Same as `partsOf`, for a path that is split already. */
export function normalize(path: readonly string[]): string[] {
  const parts: string[] = [];
  for (const part of path) {
    if (part === '..') parts.pop();
    else if (isName(part)) parts.push(part);
  }
  return parts;
}

/** Returns whether a part of a path is a name; `..` counts as one. */
export function isName(part: string): boolean {
  return part !== '' && part !== '.';
}

/** Quotes a latin1 path for a message. */
export function quote(path: string): string {
  return quoteBytes(Buffer.from(path, 'latin1'));
}

/** Returns the error for layers whose entries contradict each other or exceed a limit. */
export function noFileSystem(what: string, hint?: string): PullError {
  return new PullError('metadata-malformed', `the layers make no file system: ${what}`, { hint });
}
