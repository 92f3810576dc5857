import { PullError } from '../format/error.js';
import { type PlacedEntry, type TarSource, tarEntries } from '../format/tar-entries.js';
import { paxRecord } from '../format/tar-writer.js';
import { DIRECTORY, FILE, type FileTree, HARD_LINK, NO_ROW } from './file-tree.js';
import { type Directory, type Inode, LayerTree, partsOf } from './layer-tree.js';

/** Entries of all layers: the rows and names of four million are about 1 GB. The TOC of a layer has the same limit. */
const MAX_ENTRIES = 4 * 2 ** 20;
/** PATH_MAX of Linux: no file system takes a longer path. */
const MAX_PATH_BYTES = 4096;
/** Names, links and extended attributes of all rows: 256 bytes for each of the most there may be. */
const MAX_TEXT_BYTES = 2 ** 30;
/** Directories without an entry of their own: one for eight of the most entries. They take 160 MB; a path of 4 KB can ask for 2,048. */
const MAX_IMPLIED = MAX_ENTRIES / 8;
/**
 * Parts of paths that may be followed in all layers together, 32 for each of the most entries: four million files in directories 30
 * deep take as many, and about ten seconds. Sixteen bytes of an extended header count as one.
 */
const MAX_STEPS = 32 * MAX_ENTRIES;
const META_BYTES_A_STEP = 16;
/** User and group IDs have 32 bits; the last one means "none" (chown(2)). */
const MAX_ID = 2 ** 32 - 2;
/** Linux has 12 bits for the major number of a device and 20 for the minor one. */
const MAX_DEV_MAJOR = 2 ** 12 - 1;
const MAX_DEV_MINOR = 2 ** 20 - 1;

/** What a name begins with that takes something away (OCI image-spec, layer.md, "Whiteouts"). */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Names of aufs's own, which are no part of the image. */
const AUFS = '.wh..wh.';

/** Types that an image may have; `7` is a file that wants to lie in one piece. */
const FILE_TYPES = '07';
const OTHER_TYPES = '23456';

/** What the layers of an image may ask for. */
interface FlattenLimits {
  readonly maxSteps?: number;
  readonly maxImplied?: number;
  readonly maxTextBytes?: number;
}

/** Told of each file as its header is read: whether it is there in the end is not known yet. */
type FileListener = (layer: number, path: string, inode: Inode) => void;

/**
 * The file system that these layers make, lowest first. Only headers are read.
 * @throws PullError `metadata-malformed` when a layer is no tar or makes no file system, `unsupported` for types of
 *   entries that images do not have; as the source's `read`
 */
export function flatten(
  layers: readonly TarSource[],
  { maxSteps = MAX_STEPS, maxImplied = MAX_IMPLIED, maxTextBytes = MAX_TEXT_BYTES }: FlattenLimits = {},
  onFile: FileListener = () => {},
): FileTree {
  const tree = new LayerTree({ implied: maxImplied, steps: maxSteps });
  const onMeta = (bytes: number) => tree.spend(Math.ceil(bytes / META_BYTES_A_STEP));
  let entries = 0;
  let textBytes = 0;
  for (const [layer, source] of layers.entries()) {
    try {
      const named: Named[] = [];
      for (const entry of tarEntries(source, onMeta)) {
        entries += 1;
        if (entries > MAX_ENTRIES) throw malformed(`the image has more than ${MAX_ENTRIES} entries`);
        // Whiteouts are of lower layers only, wherever in the tar they stand.
        const path = pathOf(entry);
        if (takeAway(tree, path)) continue;
        const added = nameOf(path, entry, layer);
        textBytes += textBytesOf(added);
        if (textBytes > maxTextBytes) throw malformed(`its names have more than ${maxTextBytes} bytes`);
        named.push(added);
        if (typeof added.what !== 'string' && added.what.type === FILE) onFile(layer, path, added.what);
      }
      for (const { path, what } of named) {
        if (typeof what === 'string') tree.link(path, what);
        else tree.put(path, what);
      }
    } catch (error) {
      throw ofLayer(error, layer, layers);
    }
  }
  return rowsOf(tree, maxTextBytes);
}

/** The same error with its layer, by number and DiffID, where the layer's bytes are what is wrong. The lowest has number 1. */
function ofLayer(error: unknown, layer: number, { length, [layer]: source }: readonly TarSource[]): unknown {
  if (!(error instanceof PullError) || !['metadata-malformed', 'unsupported'].includes(error.code))
    return error;
  const { code, message, hint } = error;
  const diffId = source?.diffId;
  const where = `layer ${layer + 1} of ${length}${diffId === undefined ? '' : `, ${diffId}`}`;
  return new PullError(code, `${message} (${where})`, { hint, layer: diffId, cause: error });
}

/** What is to be under a path: something new, or the file of another path. Without the entry and its header's bytes. */
interface Named {
  readonly path: string;
  readonly what: Inode | string;
}

/** Whether the entry is a whiteout, which has done its work then, or another thing that is no file. */
function takeAway(tree: LayerTree, path: string): boolean {
  if (!path.includes(WHITEOUT)) return false;
  const parts = partsOf(path);
  tree.spend(parts.length);
  const name = parts.at(-1) ?? '';
  const parent = parts.slice(0, -1).join('/');
  if (name === OPAQUE) tree.clear(parent);
  else if (parts.some((part) => part.startsWith(AUFS))) return true;
  else if (name.startsWith(WHITEOUT)) tree.remove(`${parent}/${nameTakenAway(name)}`);
  else return false;
  return true;
}

/** @throws PullError for what would take the directory itself away, or the one above, as containerd refuses it */
function nameTakenAway(whiteout: string): string {
  const name = whiteout.slice(WHITEOUT.length);
  if (['', '.', '..'].includes(name)) throw malformed(`${JSON.stringify(whiteout)} takes no file away`);
  return name;
}

function pathOf({ entry: { name } }: PlacedEntry): string {
  if (name.length > MAX_PATH_BYTES) throw malformed(`a path is longer than ${MAX_PATH_BYTES} bytes`);
  return name.toString('latin1');
}

function nameOf(path: string, placed: PlacedEntry, layer: number): Named {
  const { type, linkName } = placed.entry;
  // Extended headers can state what no system call takes.
  if (path.includes('\0') || linkName.includes(0)) throw malformed('a path has a NUL in it');
  return { path, what: type === '1' ? linkName.toString('latin1') : inodeOf(placed, layer) };
}

function textBytesOf({ path, what }: Named): number {
  return path.length + (typeof what === 'string' ? what.length : what.link.length + what.xattrRecords.length);
}

function inodeOf({ entry, contentStart, contentBytes }: PlacedEntry, layer: number): Inode {
  const { type, mode, mtime, linkName } = entry;
  if (!FILE_TYPES.includes(type) && !OTHER_TYPES.includes(type)) {
    throw new PullError('unsupported', `a layer has an entry of type ${JSON.stringify(type)}`, {
      hint: 'zpull export IMAGE layers:DIR writes the layers as they are',
    });
  }
  if (linkName.length > MAX_PATH_BYTES) throw malformed(`a link is longer than ${MAX_PATH_BYTES} bytes`);
  const isFile = FILE_TYPES.includes(type);
  return {
    type: (isFile ? '0' : type).charCodeAt(0),
    layer,
    contentStart,
    sizeBytes: isFile ? contentBytes : 0,
    mode: mode & 0o7777,
    uid: within(entry.uid, MAX_ID, 'a user ID'),
    gid: within(entry.gid, MAX_ID, 'a group ID'),
    mtimeSeconds: mtime.seconds,
    mtimeNanos: mtime.nanos,
    devMajor: within(entry.devMajor, MAX_DEV_MAJOR, 'a device number'),
    devMinor: within(entry.devMinor, MAX_DEV_MINOR, 'a device number'),
    link: type === '2' ? linkName.toString('latin1') : '',
    xattrRecords: xattrRecords(entry.xattrs),
    row: -1,
  };
}

function within(value: number, most: number, what: string): number {
  if (value >= 0 && value <= most) return value;
  throw malformed(`${what} in it is ${value}`);
}

function xattrRecords(xattrs: ReadonlyMap<string, Buffer>): string {
  if (xattrs.size === 0) return '';
  return [...xattrs]
    .map(([name, value]) => paxRecord(`SCHILY.xattr.${name}`, value).toString('latin1'))
    .join('');
}

/** The tree as rows: a walk that takes the names of each directory in the order of their bytes. */
function rowsOf({ root, rootIsStated }: LayerTree, maxTextBytes: number): FileTree {
  const { rows, textBytes } = measure(root.directory!, '');
  if (textBytes > maxTextBytes) throw malformed(`its names have more than ${maxTextBytes} bytes`);
  const writer = new RowWriter(rootIsStated ? rows + 1 : rows, textBytes + root.inode.xattrRecords.length);
  if (rootIsStated) writer.add(root.inode, '', NO_ROW);
  addNames(writer, root.directory!, '', NO_ROW);
  return writer.tree;
}

function measure({ names }: Directory, path: string): { rows: number; textBytes: number } {
  let rows = 0;
  let textBytes = 0;
  for (const [name, child] of names) {
    const own = path === '' ? name : `${path}/${name}`;
    if (own.length > MAX_PATH_BYTES) throw malformed(`a path is longer than ${MAX_PATH_BYTES} bytes`);
    rows += 1;
    textBytes += own.length + child.inode.link.length + child.inode.xattrRecords.length;
    if (child.directory === undefined) continue;
    const below = measure(child.directory, own);
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

/** Fills the rows of a tree, one after the other. */
export class RowWriter {
  readonly tree: FileTree;
  readonly #text: Buffer;
  #row = 0;
  #textEnd = 0;

  constructor(count: number, textBytes: number) {
    this.tree = {
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
    this.#text = Buffer.from(this.tree.text.buffer);
  }

  /** Returns the row it has become. */
  add(inode: Inode, path: string, parent: number): number {
    const { tree } = this;
    const row = this.#row++;
    const first = inode.row < 0 || inode.type === DIRECTORY;
    if (first) inode.row = row;
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
}

function doubles(count: number): Float64Array<SharedArrayBuffer> {
  return new Float64Array(new SharedArrayBuffer(count * 8));
}

function words(count: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(count * 4));
}

function malformed(what: string): PullError {
  return new PullError('metadata-malformed', `the layers make no file system: ${what}`);
}
