import { PullError } from '../format/error.js';
import { type PlacedEntry, type TarSource, tarEntries } from '../format/tar-entries.js';
import { paxRecord } from '../format/tar-writer.js';
import { DIRECTORY, FILE, SYMLINK } from './file-tree.js';
import { LayerTree } from './layer-tree.js';
import { type Inode, isName, MAX_PATH_BYTES, noFileSystem, partsOf, quote } from './tree-nodes.js';

/**
 * Limit of the entries of all layers: rows and names of four million take about 1 GB. A TOC has the
 * same limit.
 */
export const MAX_ENTRIES = 4 * 2 ** 20;
/**
 * Limit of names, links, extended attributes and sparse maps of all rows: 256 bytes for each
 * possible entry.
 */
export const MAX_TEXT_BYTES = 2 ** 30;
/**
 * Limit of path parts that are followed in all layers together, 32 for each possible entry: four
 * million files in directories 30 deep take as many, in about ten seconds. Sixteen bytes of an
 * extended header count as one.
 */
export const MAX_STEPS = 32 * MAX_ENTRIES;
/** Limits of Linux: of a name (NAME_MAX), and of a link target (PATH_MAX includes its NUL). */
const MAX_NAME_BYTES = 255;
const MAX_LINK_BYTES = 4095;
/** Bytes of extended headers and sparse maps that count as one step of `LayerTree`. */
const META_BYTES_A_STEP = 16;
/** Linux has 12 bits for the major number of a device and 20 for the minor one. */
const MAX_DEV_MAJOR = 2 ** 12 - 1;
const MAX_DEV_MINOR = 2 ** 20 - 1;

/** Prefix of whiteouts (OCI image-spec, layer.md, "Whiteouts"). */
export const WHITEOUT = '.wh.';
export const OPAQUE = '.wh..wh..opq';
/** Prefix of internal names of aufs, which are not part of the image. */
export const AUFS = '.wh..wh.';

/** Entry types that an image may have; `7` is a contiguous file, `S` a sparse file of GNU tar. */
const FILE_TYPES = '07S';
const OTHER_TYPES = '23456';

/** The changes of a layer to those below it. */
export interface LayerChanges {
  readonly named: readonly Named[];
  /** Paths of whiteouts. */
  readonly whiteouts: readonly string[];
}

/** An entry: a path with a new inode, or with the target of a hard link. */
export interface Named {
  readonly path: string;
  readonly what: Inode | string;
  /** Whether it belongs to aufs: not part of the image, but hard links may lead to it. */
  readonly isHidden: boolean;
}

interface ReadLimits {
  readonly maxEntries: number;
  /** Limits the text of names, links and extended attributes. */
  readonly maxTextBytes: number;
  /** Whether names and links that Linux does not accept are refused. */
  readonly intoFiles: boolean;
}

/** Called with each file as its header is read; later entries may remove it. */
export type FileListener = (layer: number, path: string, inode: Inode) => void;

/** Reads the changes of layers, one after the other, and enforces the limits of all of them. */
export class LayerReader {
  readonly #tree: LayerTree;
  readonly #limits: ReadLimits;
  #entries = 0;
  #textBytes = 0;

  constructor(tree: LayerTree, limits: ReadLimits) {
    this.#tree = tree;
    this.#limits = limits;
  }

  /** Returns the changes of a layer, in the order of its tar. @throws as `flatten` */
  read(source: TarSource, layer: number, onFile: FileListener): LayerChanges {
    const { maxEntries, intoFiles } = this.#limits;
    const named: Named[] = [];
    const whiteouts: string[] = [];
    const onMeta = (bytes: number) => this.#tree.spend(Math.ceil(bytes / META_BYTES_A_STEP));
    for (const entry of tarEntries(source, onMeta)) {
      this.#entries += 1;
      if (this.#entries > maxEntries) throw noFileSystem(`the image has more than ${maxEntries} entries`);
      const path = pathOf(entry);
      const kind = this.#kindOf(path);
      if (kind === 'whiteout') {
        this.#countText(path.length);
        whiteouts.push(path);
      } else if (kind === 'file' || entry.entry.type !== '5') {
        const added = { path, what: whatOf(path, entry, layer), isHidden: kind === 'hidden' };
        this.#countText(textBytesOf(added));
        if (intoFiles) requireFileName(added);
        named.push(added);
        const { what, isHidden } = added;
        if (!isHidden && typeof what !== 'string' && what.type === FILE) onFile(layer, path, what);
      }
    }
    return { named, whiteouts };
  }

  #kindOf(path: string): 'file' | 'whiteout' | 'hidden' {
    if (!path.includes(WHITEOUT)) return 'file';
    const parts = partsOf(path);
    this.#tree.spend(parts.length);
    const name = parts.at(-1) ?? '';
    if (name === OPAQUE) return 'whiteout';
    if (parts.some((part) => part.startsWith(AUFS))) return 'hidden';
    return name.startsWith(WHITEOUT) ? 'whiteout' : 'file';
  }

  #countText(bytes: number): void {
    this.#textBytes += bytes;
    const { maxTextBytes } = this.#limits;
    if (this.#textBytes > maxTextBytes) throw noFileSystem(`its names have more than ${maxTextBytes} bytes`);
  }
}

function pathOf({ entry: { name } }: PlacedEntry): string {
  const path = name.toString('latin1');
  if (name.length > MAX_PATH_BYTES)
    throw noFileSystem(`the path ${quote(path)} is longer than ${MAX_PATH_BYTES} bytes`);
  return path;
}

function whatOf(path: string, placed: PlacedEntry, layer: number): Inode | string {
  const { type, linkName } = placed.entry;
  // Extended headers can contain a NUL, which no system call accepts.
  if (path.includes('\0') || linkName.includes(0))
    throw noFileSystem(`there is a NUL in the path or the link of ${quote(path)}`);
  if (linkName.length > MAX_PATH_BYTES)
    throw noFileSystem(`the link ${quote(path)} is longer than ${MAX_PATH_BYTES} bytes`);
  return type === '1' ? linkName.toString('latin1') : inodeOf(path, placed, layer);
}

function textBytesOf({ path, what }: Named): number {
  if (typeof what === 'string') return path.length + what.length;
  return path.length + what.link.length + what.xattrRecords.length + (what.sparse?.bounds.byteLength ?? 0);
}

/** @throws PullError for an entry that a tar can have, but no system call can create */
function requireFileName({ path, what }: Named): void {
  if (path.length > MAX_NAME_BYTES && path.split('/').some((part) => part.length > MAX_NAME_BYTES))
    throw noFileSystem(`a name in ${quote(path)} is longer than ${MAX_NAME_BYTES} bytes`, TAR_HINT);
  if (typeof what === 'string' || what.type !== SYMLINK) return;
  if (what.link === '') throw noFileSystem(`the symbolic link ${quote(path)} leads nowhere`, TAR_HINT);
  if (what.link.length > MAX_LINK_BYTES)
    throw noFileSystem(`the symbolic link ${quote(path)} is longer than ${MAX_LINK_BYTES} bytes`, TAR_HINT);
}

const TAR_HINT =
  'the image has what no file system takes: report it to the publisher; zpull export IMAGE tar:FILE writes it as it is';

function inodeOf(
  path: string,
  { entry, contentStart, contentBytes, sparse }: PlacedEntry,
  layer: number,
): Inode {
  const { type, mode, mtime, linkName, uid, gid } = entry;
  if (!FILE_TYPES.includes(type) && !OTHER_TYPES.includes(type)) {
    throw new PullError('unsupported', `${quote(path)} is an entry of type ${JSON.stringify(type)}`, {
      hint: 'zpull export IMAGE layers:DIR writes the layers as they are',
    });
  }
  const isFile = FILE_TYPES.includes(type);
  return {
    type: (isFile ? '0' : type).charCodeAt(0),
    layer,
    contentStart,
    sizeBytes: isFile ? contentBytes : 0,
    sparse,
    mode: mode & 0o7777,
    uid,
    gid,
    mtimeSeconds: mtime.seconds,
    mtimeNanos: mtime.nanos,
    devMajor: deviceNumber(path, entry.devMajor, MAX_DEV_MAJOR),
    devMinor: deviceNumber(path, entry.devMinor, MAX_DEV_MINOR),
    link: type === '2' ? linkName.toString('latin1') : '',
    xattrRecords: xattrRecords(entry.xattrs),
    row: -1,
  };
}

function deviceNumber(path: string, value: number, max: number): number {
  if (value >= 0 && value <= max) return value;
  throw noFileSystem(`${quote(path)} has the device number ${value}`);
}

function xattrRecords(xattrs: ReadonlyMap<string, Buffer>): string {
  if (xattrs.size === 0) return '';
  return [...xattrs]
    .map(([name, value]) => paxRecord(`SCHILY.xattr.${name}`, value).toString('latin1'))
    .join('');
}

/**
 * Effect of a layer on what lower layers have at a path and below it: it hides everything
 * (`covers`), or not everything (`leaves`). `unclear`: its effect on any path may depend on the
 * layers below.
 */
type LayerEffect = 'covers' | 'leaves' | 'unclear';

/**
 * Returns the effect of a layer on a path. It is clear only if the layer has an entry for each
 * directory before those of its files, so that no lower symbolic link redirects them, has hard
 * links to its own files alone, and has no symbolic link on the way to the path.
 * @param names the path from the root, at least one name and no `..`, in latin1
 * @throws PullError as `flatten`, for this layer alone
 */
export function effectOf(source: TarSource, names: readonly string[]): LayerEffect {
  const tree = new LayerTree({ implied: 0, steps: MAX_STEPS });
  const limits = { maxEntries: MAX_ENTRIES, maxTextBytes: MAX_TEXT_BYTES, intoFiles: false };
  const changes = new LayerReader(tree, limits).read(source, 0, () => {});
  const requested = names.join('/');
  const stated = statedDirectories(changes, requested);
  if (stated === undefined) return 'unclear';
  let covers = stated.covers;
  for (const whiteout of changes.whiteouts) {
    const hidden = hiddenBy(whiteout, stated.directories);
    if (hidden === undefined) return 'unclear';
    covers ||= `${requested}/`.startsWith(hidden);
  }
  return covers ? 'covers' : 'leaves';
}

/**
 * Returns the directories of a layer and whether a file of it is on the way; undefined if unclear.
 */
function statedDirectories({ named }: LayerChanges, requested: string) {
  const directories = new Set(['']);
  const files = new Set<string>();
  let covers = false;
  for (const { path, what, isHidden } of named) {
    const normal = literal(path);
    if (isHidden || normal === undefined || !directories.has(parentOf(normal))) return undefined;
    const isLink = typeof what === 'string';
    if (!isLink && what.type === DIRECTORY) {
      directories.add(normal);
      continue;
    }
    if (directories.has(normal) || (isLink && !files.has(literal(what) ?? ''))) return undefined;
    const isOnTheWay = `${requested}/`.startsWith(`${normal}/`);
    covers ||= isOnTheWay;
    if (isLink || what.type !== SYMLINK) files.add(normal);
    else if (isOnTheWay) return undefined;
    else files.delete(normal);
  }
  return { directories, covers };
}

/** Returns what a whiteout hides, as a path that ends in a slash; undefined if unclear. */
function hiddenBy(whiteout: string, directories: ReadonlySet<string>): string | undefined {
  const normal = literal(whiteout);
  if (normal === undefined || !directories.has(parentOf(normal))) return undefined;
  const parent = normal.slice(0, normal.lastIndexOf('/') + 1);
  const name = normal.slice(parent.length);
  if (name === OPAQUE) return parent;
  const hidden = name.slice(WHITEOUT.length);
  return ['', '.', '..'].includes(hidden) ? undefined : `${parent}${hidden}/`;
}

/** Returns the path without empty parts; undefined if it has `..`. */
function literal(path: string): string | undefined {
  const names = path.split('/').filter(isName);
  return names.includes('..') ? undefined : names.join('/');
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
