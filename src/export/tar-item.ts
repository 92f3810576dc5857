import { paddingOf, TAR_BLOCK_BYTES } from '../format/tar-fields.js';
import { sparseHeader, TAR_END, tarHeader } from '../format/tar-writer.js';
import {
  boundsAt,
  DIRECTORY,
  type FileTree,
  fileBytesAt,
  HARD_LINK,
  linkAt,
  pathAt,
  xattrRecordsAt,
} from './file-tree.js';

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
