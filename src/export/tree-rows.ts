import type { PullError } from '../format/error.js';
import type { SparseMap } from '../format/tar-sparse.js';
import { DIRECTORY, type FileTree, HARD_LINK, NO_ROW } from './file-tree.js';
import { MAX_PATH_BYTES } from './layer-changes.js';
import type { LayerTree } from './layer-tree.js';
import type { Directory, Inode } from './tree-nodes.js';
import { noFileSystem, quote } from './tree-nodes.js';

/** Adds the layer to an error about it. */
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
    const own = path === '' ? name : `${path}/${name}`;
    if (own.length > MAX_PATH_BYTES)
      throw locate(
        noFileSystem(`the path ${quote(own)} is longer than ${MAX_PATH_BYTES} bytes`),
        child.inode.layer,
      );
    rows += 1;
    textBytes += own.length + child.inode.link.length + child.inode.xattrRecords.length;
    if (child.directory === undefined) continue;
    const below = measure(child.directory, own, locate);
    rows += below.rows;
    textBytes += below.textBytes;
  }
  return { rows, textBytes };
}

function addNames(writer: RowWriter, { names }: Directory, path: string, parent: number): void {
  for (const name of [...names.keys()].sort()) {
    const child = names.get(name)!;
    const own = path === '' ? name : `${path}/${name}`;
    const row = writer.add(child.inode, own, parent);
    if (child.directory !== undefined) addNames(writer, child.directory, own, row);
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
