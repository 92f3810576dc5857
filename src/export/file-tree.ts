import { lastAtMost } from '../format/arrays.js';
import { paddingOf, TAR_BLOCK_BYTES } from '../format/tar-fields.js';
import { sparseHeader, TAR_END, tarHeader } from '../format/tar-writer.js';
import type { TreeRows } from '../pool/messages.js';

/**
 * A flattened file system as flat rows in shared memory: what travels between the threads of an export. Rows are in the
 * order of a walk, each directory's names sorted by their bytes, so a directory stands before what is in it and a
 * file before its hard links.
 */
export type FileTree = TreeRows;

/** The type flags, as bytes. */
export const FILE = 0x30;
export const HARD_LINK = 0x31;
export const SYMLINK = 0x32;
export const DIRECTORY = 0x35;

/** The paths, links and attributes of rows. */
type Texts = Pick<FileTree, 'text' | 'textEnd'>;

/** No row: what the parent of the root's entries is. */
export const NO_ROW = -1;

/** Most rows have no link and no attributes. */
const NO_BYTES = Buffer.alloc(0);

/** The name of a row in the directory that it is in, as bytes: names need not be UTF-8. */
export function nameAt(tree: FileTree, row: number): Buffer {
  const parent = tree.parent[row]!;
  const start = startOfText(tree, row, 0);
  const above = parent === NO_ROW ? 0 : tree.textEnd[parent * 3]! - startOfText(tree, parent, 0) + 1;
  return Buffer.from(tree.text.buffer, start + above, tree.textEnd[row * 3]! - start - above);
}

/** Whether a row is the root of the file system, which stands first if a layer states it. */
export function isRoot(tree: FileTree, row: number): boolean {
  return row === 0 && tree.textEnd[0] === 0;
}

/** The path of a row, without a slash at either end; the root's is empty. */
export function pathAt(tree: Texts, row: number): Buffer {
  return textAt(tree, row, 0);
}

/** What a symbolic link says. */
export function linkAt(tree: FileTree, row: number): Buffer {
  return textAt(tree, row, 1);
}

/** The extended attributes of a row, as the pax records that state them. */
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

/** Bytes of all files, each once and without holes; or of those among these rows. */
export function contentBytes(tree: FileTree, rows?: Uint32Array): number {
  let sum = 0;
  const count = rows?.length ?? tree.count;
  for (let i = 0; i < count; i++) {
    const row = rows?.[i] ?? i;
    if (tree.type[row] === FILE) sum += tree.sizeBytes[row]!;
  }
  return sum;
}

/** How long a row's file is, holes included. */
export function fileBytesAt({ sparse, sizeBytes }: FileTree, row: number): number {
  const at = sparseAt(sparse, row);
  return at < 0 ? sizeBytes[row]! : sparse.fileBytes[at]!;
}

/** Start and end of each run of bytes in a row's file that its content has, or undefined where that is all of it. */
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
 * A time as Node sets it, to the microsecond, which it cuts off towards zero: half of one more keeps what a double makes of the
 * fraction from falling below it, until 2242. Before 1970 that is towards the next microsecond, and only as text: a negative number means "now".
 */
export function fileTime(seconds: number, nanos: number): number | string {
  const micros = Math.floor(nanos / 1000);
  if (seconds >= 0) return seconds + (micros + HALF_MICROSECOND) / 1e6;
  return String(seconds + (micros - HALF_MICROSECOND) / 1e6);
}

const SLASH = Buffer.from('/');
const ROOT = Buffer.from('./');

type Item = Parameters<typeof tarHeader>[0];
type ItemType = Item['type'];

/**
 * The tar header of a row, but for `changes`: a directory's name ends in a slash, the root is `./`. The map of a sparse file is part
 * of it, so that always the row's content follows.
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

/** How long a tar of these rows is at least: that of one without extended headers. */
export function leastTarBytes({ count, sizeBytes }: FileTree): number {
  const padded = sizeBytes.reduce((sum, size) => sum + size + paddingOf(size), 0);
  return count * TAR_BLOCK_BYTES + padded + TAR_END.length;
}

function directoryName(path: Buffer): Buffer {
  return path.length === 0 ? ROOT : Buffer.concat([path, SLASH]);
}
