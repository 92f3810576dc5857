import { PullError, quoteBytes } from '../format/error.js';
import type { SparseMap } from '../format/tar-sparse.js';
import { DIRECTORY, type FileTree, HARD_LINK, NO_ROW } from './file-tree.js';
import type { LayerTree } from './layer-tree.js';

/** Symbolic links that Linux follows in one path (path_resolution(7)). */
export const MAX_LINKS = 40;

/** PATH_MAX of Linux. */
export const MAX_PATH_BYTES = 4096;

/** Limit of nested directories: a path of PATH_MAX bytes cannot have more. */
const MAX_DEPTH = MAX_PATH_BYTES / 2;

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

type Locate = (error: PullError, layer: number) => unknown;

/**
 * Returns the tree as rows, depth first, the names of each directory sorted by their bytes.
 * @throws PullError `metadata-malformed` above `maxTextBytes`, and for a path that is too long
 */
export function rowsOf(
  { root, rootIsStated }: Pick<LayerTree, 'root' | 'rootIsStated'>,
  maxTextBytes: number,
  locate: Locate,
): FileTree {
  const { rows, textBytes } = measure(root.directory!, '', locate);
  if (textBytes > maxTextBytes) throw noFileSystem(`its names have more than ${maxTextBytes} bytes`);
  const writer = new RowWriter(rootIsStated ? rows + 1 : rows, textBytes + root.inode.xattrRecords.length);
  if (rootIsStated) writer.add(root.inode, '', NO_ROW);
  addNames(writer, root.directory!, '', NO_ROW);
  return writer.finish();
}

function measure({ names }: Directory, path: string, locate: Locate): { rows: number; textBytes: number } {
  let rows = 0;
  let textBytes = 0;
  for (const [name, child] of names) {
    const childPath = path === '' ? name : `${path}/${name}`;
    if (childPath.length > MAX_PATH_BYTES)
      throw locate(
        noFileSystem(`the path ${quote(childPath)} is longer than ${MAX_PATH_BYTES} bytes`),
        child.inode.layer,
      );
    rows += 1;
    textBytes += childPath.length + child.inode.link.length + child.inode.xattrRecords.length;
    if (child.directory === undefined) continue;
    const below = measure(child.directory, childPath, locate);
    rows += below.rows;
    textBytes += below.textBytes;
  }
  return { rows, textBytes };
}

function addNames(writer: RowWriter, { names }: Directory, path: string, parent: number): void {
  for (const name of [...names.keys()].sort()) {
    const child = names.get(name)!;
    const childPath = path === '' ? name : `${path}/${name}`;
    const row = writer.add(child.inode, childPath, parent);
    if (child.directory !== undefined) addNames(writer, child.directory, childPath, row);
  }
}

/** Writes the rows of a tree in order. */
export class RowWriter {
  readonly #tree: Omit<FileTree, 'sparse'>;
  readonly #sparse: Array<{ readonly row: number; readonly map: SparseMap }> = [];
  readonly #text: Buffer;
  #row = 0;
  #textEnd = 0;

  constructor(count: number, textBytes: number) {
    this.#tree = {
      count,
      type: new Uint8Array(new SharedArrayBuffer(count)),
      layer: new Uint16Array(new SharedArrayBuffer(count * 2)),
      contentStart: doubles(count),
      sizeBytes: doubles(count),
      mode: new Uint16Array(new SharedArrayBuffer(count * 2)),
      uid: words(count),
      gid: words(count),
      mtimeSeconds: doubles(count),
      mtimeNanos: words(count),
      devMajor: words(count),
      devMinor: words(count),
      target: words(count),
      parent: new Int32Array(new SharedArrayBuffer(count * 4)),
      textEnd: doubles(count * 3),
      text: new Uint8Array(new SharedArrayBuffer(textBytes)),
    };
    this.#text = Buffer.from(this.#tree.text.buffer);
  }

  /** Returns the new row. */
  add(inode: Inode, path: string, parent: number): number {
    const tree = this.#tree;
    const row = this.#row++;
    const first = inode.row < 0 || inode.type === DIRECTORY;
    if (first) inode.row = row;
    if (first && inode.sparse !== undefined) this.#sparse.push({ row, map: inode.sparse });
    tree.type[row] = first ? inode.type : HARD_LINK;
    tree.target[row] = inode.row;
    tree.parent[row] = parent;
    tree.layer[row] = inode.layer;
    tree.contentStart[row] = inode.contentStart;
    tree.sizeBytes[row] = first ? inode.sizeBytes : 0;
    tree.mode[row] = inode.mode;
    tree.uid[row] = inode.uid;
    tree.gid[row] = inode.gid;
    tree.mtimeSeconds[row] = inode.mtimeSeconds;
    tree.mtimeNanos[row] = inode.mtimeNanos;
    tree.devMajor[row] = inode.devMajor;
    tree.devMinor[row] = inode.devMinor;
    for (const [which, text] of [path, first ? inode.link : '', first ? inode.xattrRecords : ''].entries()) {
      this.#textEnd += this.#text.write(text, this.#textEnd, 'latin1');
      tree.textEnd[row * 3 + which] = this.#textEnd;
    }
    return row;
  }

  /** Returns the tree; to be called after the last row. */
  finish(): FileTree {
    const count = this.#sparse.length;
    const boundsCount = this.#sparse.reduce((sum, { map }) => sum + map.bounds.length, 0);
    const sparse = {
      rows: words(count),
      fileBytes: doubles(count),
      boundsEnd: words(count),
      bounds: doubles(boundsCount),
    };
    let end = 0;
    for (const [at, { row, map }] of this.#sparse.entries()) {
      sparse.rows[at] = row;
      sparse.fileBytes[at] = map.fileBytes;
      sparse.bounds.set(map.bounds, end);
      end += map.bounds.length;
      sparse.boundsEnd[at] = end;
    }
    return { ...this.#tree, sparse };
  }
}

function doubles(count: number): Float64Array<SharedArrayBuffer> {
  return new Float64Array(new SharedArrayBuffer(count * 8));
}

function words(count: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(count * 4));
}
