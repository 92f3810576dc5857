import { lastAtMost } from '../format/arrays.js';
import { paddingOf, TAR_BLOCK_BYTES } from '../format/tar-fields.js';
import { sparseHeader, TAR_END, tarHeader } from '../format/tar-writer.js';
import type { TreeRows } from '../pool/messages.js';

/**
 * A flattened file system as rows in shared memory, which the threads of an export exchange. Rows
 * are in depth-first order with the names of a directory sorted by their bytes: a directory
 * precedes its entries and a file its hard links.
 */
export type FileTree = TreeRows;

/** Type flags of tar, as bytes. */
export const FILE = 0x30;
export const HARD_LINK = 0x31;
export const SYMLINK = 0x32;
export const DIRECTORY = 0x35;

/** Paths, link targets and attributes of rows. */
type Texts = Pick<FileTree, 'text' | 'textEnd'>;

/** The parent of the root's entries. */
export const NO_ROW = -1;

/** Shared, as most rows have neither link target nor attributes. */
const NO_BYTES = Buffer.alloc(0);

const SLASH = Buffer.from('/');
const ROOT = Buffer.from('./');

/** Returns the last name of a row's path, as bytes: names need not be UTF-8. */
export function nameAt(tree: FileTree, row: number): Buffer {
  const parent = tree.parent[row]!;
  const start = startOfText(tree, row, 0);
  const above = parent === NO_ROW ? 0 : tree.textEnd[parent * 3]! - startOfText(tree, parent, 0) + 1;
  return Buffer.from(tree.text.buffer, start + above, tree.textEnd[row * 3]! - start - above);
}

/** Returns whether a row is the root, which is row 0 if a layer has an entry for it. */
export function isRoot(tree: FileTree, row: number): boolean {
  return row === 0 && tree.textEnd[0] === 0;
}

/** Returns the path of a row, without a slash at either end; empty for the root. */
export function pathAt(tree: Texts, row: number): Buffer {
  return textAt(tree, row, 0);
}

/** Returns the target of a symbolic link. */
export function linkAt(tree: FileTree, row: number): Buffer {
  return textAt(tree, row, 1);
}

/** Returns the extended attributes of a row, as pax records. */
export function xattrRecordsAt(tree: FileTree, row: number): Buffer {
  return textAt(tree, row, 2);
}

function textAt(tree: Texts, row: number, which: 0 | 1 | 2): Buffer {
  const start = startOfText(tree, row, which);
  const lengthBytes = tree.textEnd[row * 3 + which]! - start;
  return lengthBytes === 0 ? NO_BYTES : Buffer.from(tree.text.buffer, start, lengthBytes);
}

function startOfText(tree: Texts, row: number, which: 0 | 1 | 2): number {
  const at = row * 3 + which;
  return at === 0 ? 0 : tree.textEnd[at - 1]!;
}

/** Returns the content bytes of all files, or of those in `rows`: each once and without holes. */
export function contentBytes(tree: FileTree, rows?: Uint32Array): number {
  let sum = 0;
  const count = rows?.length ?? tree.count;
  for (let i = 0; i < count; i++) {
    const row = rows?.[i] ?? i;
    if (tree.type[row] === FILE) sum += tree.sizeBytes[row]!;
  }
  return sum;
}

/** Returns the length of a row's file, holes included. */
export function fileBytesAt({ sparse, sizeBytes }: FileTree, row: number): number {
  const at = sparseAt(sparse, row);
  return at < 0 ? sizeBytes[row]! : sparse.fileBytes[at]!;
}

/** Returns start and end of each run of data in a sparse file; undefined for other files. */
export function boundsAt({ sparse }: FileTree, row: number): Float64Array | undefined {
  const at = sparseAt(sparse, row);
  return at < 0
    ? undefined
    : sparse.bounds.subarray(at === 0 ? 0 : sparse.boundsEnd[at - 1], sparse.boundsEnd[at]);
}

function sparseAt({ rows }: FileTree['sparse'], row: number): number {
  if (rows.length === 0) return -1;
  const at = lastAtMost(rows, rows.length, row);
  return rows[at] === row ? at : -1;
}

const HALF_MICROSECOND = 0.5;

/**
 * Returns a time for Node's `utimes`, which truncates to the microsecond towards zero. Half a
 * microsecond is added away from zero against rounding errors of the double; this is exact until
 * 2242. Times before 1970 are strings, as Node takes a negative number for "now".
 */
export function fileTime(seconds: number, nanos: number): number | string {
  const micros = Math.floor(nanos / 1000);
  if (seconds >= 0) return seconds + (micros + HALF_MICROSECOND) / 1e6;
  return String(seconds + (micros - HALF_MICROSECOND) / 1e6);
}

type Item = Parameters<typeof tarHeader>[0];
type ItemType = Item['type'];

/**
 * Returns the tar header of a row with `changes`: the name of a directory ends in a slash, the root
 * is `./`. The header of a sparse file includes its map, so that the row's content always follows.
 */
export function headerAt(tree: FileTree, row: number, changes: Partial<Item> = {}): Buffer {
  const type = tree.type[row]!;
  const records = xattrRecordsAt(tree, row);
  const path = pathAt(tree, row);
  const bounds = boundsAt(tree, row);
  const item = {
    type: String.fromCharCode(type) as ItemType,
    name: type === DIRECTORY ? directoryName(path) : path,
    linkName: type === HARD_LINK ? pathAt(tree, tree.target[row]!) : linkAt(tree, row),
    mode: tree.mode[row]!,
    uid: tree.uid[row]!,
    gid: tree.gid[row]!,
    sizeBytes: tree.sizeBytes[row]!,
    mtimeSeconds: tree.mtimeSeconds[row]!,
    mtimeNanos: tree.mtimeNanos[row]!,
    devMajor: tree.devMajor[row]!,
    devMinor: tree.devMinor[row]!,
    records: records.length > 0 ? records : undefined,
    ...changes,
  };
  return bounds === undefined ? tarHeader(item) : sparseHeader(item, bounds, fileBytesAt(tree, row));
}

/** Returns the least length of a tar of these rows: that without extended headers. */
export function leastTarBytes({ count, sizeBytes }: FileTree): number {
  const padded = sizeBytes.reduce((sum, size) => sum + size + paddingOf(size), 0);
  return count * TAR_BLOCK_BYTES + padded + TAR_END.length;
}

function directoryName(path: Buffer): Buffer {
  return path.length === 0 ? ROOT : Buffer.concat([path, SLASH]);
}
