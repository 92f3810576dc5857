import { PullError } from '../format/error.js';
import type { TarSource } from '../format/tar-entries.js';
import { DIRECTORY, type FileTree, SYMLINK } from './file-tree.js';
import {
  AUFS,
  type FileListener,
  type LayerChanges,
  LayerReader,
  MAX_ENTRIES,
  type Named,
  OPAQUE,
  WHITEOUT,
} from './layer-changes.js';
import { LayerTree, type StatedPath } from './layer-tree.js';
import {
  type Inode,
  isName,
  MAX_LINKS,
  type Node,
  noFileSystem,
  partsOf,
  quote,
  shallowFirst,
} from './tree-nodes.js';
import { rowsOf } from './tree-rows.js';

/** Directories without an entry of their own: one for eight of the most entries. They take 160 MB; a path of 4 KB can ask for 2,048. */
const MAX_IMPLIED = MAX_ENTRIES / 8;
/** Names, links, extended attributes and maps of sparse files of all rows: 256 bytes for each of the most there may be. */
export const MAX_TEXT_BYTES = 2 ** 30;
/**
 * Parts of paths that may be followed in all layers together, 32 for each of the most entries: four million files in directories 30
 * deep take as many, and about ten seconds. Sixteen bytes of an extended header count as one.
 */
export const MAX_STEPS = 32 * MAX_ENTRIES;

/** What the layers of an image may ask for. */
interface FlattenLimits {
  readonly maxSteps?: number;
  readonly maxImplied?: number;
  readonly maxTextBytes?: number;
  readonly maxEntries?: number;
  /** Whether what Linux takes for no name or link is refused. */
  readonly intoFiles?: boolean;
  /** Only this part of the file system is exported; all of it when left out. */
  readonly only?: Selection | undefined;
}

/**
 * The file system that these layers make, lowest first. Only headers are read. `docs/exports.md` says what it does where programs
 * differ.
 * @throws PullError `metadata-malformed` when a layer is no tar or makes no file system, `unsupported` for types of
 *   entries that images do not have; as `subtreeOf`; as the source's `read`
 */
export function flatten(
  layers: readonly TarSource[],
  {
    maxSteps = MAX_STEPS,
    maxImplied = MAX_IMPLIED,
    maxTextBytes = MAX_TEXT_BYTES,
    maxEntries = MAX_ENTRIES,
    intoFiles = false,
    only,
  }: FlattenLimits = {},
  onFile: FileListener = () => {},
): FileTree {
  const tree = new LayerTree({ implied: maxImplied, steps: maxSteps });
  const reader = new LayerReader(tree, { maxEntries, maxTextBytes, intoFiles });
  const hidden = new Map<string, Inode>();
  for (const [layer, source] of layers.entries()) {
    try {
      applyLayer(tree, reader.read(source, layer, onFile), hidden);
    } catch (error) {
      throw ofLayer(error, layer, layers);
    }
  }
  const chosen = only === undefined ? tree : subtreeOf(tree, only);
  return rowsOf(chosen, maxTextBytes, (error, layer) => ofLayer(error, layer, layers));
}

/**
 * Applies a layer: what it takes away of those below it first, wherever in the tar that stands, then what it has, in the order of the
 * tar. `hidden`: what hard links may lead to beside the tree, by path.
 */
function applyLayer(tree: LayerTree, { named, whiteouts }: LayerChanges, hidden: Map<string, Inode>): void {
  let at = '';
  try {
    // A whiteout is in a directory of its own layer, not behind the link that this directory takes the place of.
    if (whiteouts.length > 0 && !tree.isEmpty) tree.blockReplacedLinks(statedPaths(named));
    for (at of shallowFirst(whiteouts, (path) => path)) applyWhiteout(tree, at);
    tree.unblockLinks();
    for (const { path, what, isHidden } of named) {
      at = path;
      const inode = typeof what === 'string' ? linkedInode(tree, hidden, what, path) : what;
      if (isHidden) hidden.set(keyOf(path), inode);
      else tree.put(path, inode);
    }
  } catch (error) {
    throw atPath(error, at);
  }
}

/** The same error with the path of the entry, where it does not name that. */
function atPath(error: unknown, path: string): unknown {
  if (!(error instanceof PullError) || error.message.includes(quote(path))) return error;
  const { code, message, hint } = error;
  return new PullError(code, `${message}, at ${quote(path)}`, { hint, cause: error });
}

function statedPaths(named: readonly Named[]): StatedPath[] {
  return named
    .filter(({ isHidden }) => !isHidden)
    .map(({ path, what }) => ({
      path,
      link: typeof what !== 'string' && what.type === SYMLINK ? what.link : undefined,
    }));
}

function linkedInode(
  tree: LayerTree,
  hidden: ReadonlyMap<string, Inode>,
  target: string,
  path: string,
): Inode {
  const inode = target.includes(AUFS) ? hidden.get(keyOf(target)) : undefined;
  return inode ?? tree.fileAt(target, path);
}

function keyOf(path: string): string {
  return partsOf(path).join('/');
}

function applyWhiteout(tree: LayerTree, path: string): void {
  const parts = partsOf(path);
  const name = parts.pop() ?? '';
  const parent = parts.join('/');
  if (name === OPAQUE) tree.clear(parent);
  else tree.remove(`${parent}/${whiteoutTarget(name, path)}`);
}

/** @throws PullError for what would take the directory itself away, or the one above, as containerd refuses it */
function whiteoutTarget(whiteout: string, path: string): string {
  const name = whiteout.slice(WHITEOUT.length);
  if (['', '.', '..'].includes(name)) throw noFileSystem(`${quote(path)} takes no file away`);
  return name;
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

/** The part of a file system that is exported. */
interface Selection {
  /** From the root of the image on, with or without a slash before it; links are followed inside the image, that at its end, too. */
  readonly path: string;
  /** Whether a directory becomes the root of the export; else it keeps its name. */
  readonly asRoot: boolean;
}

/** Where a path has led so far. */
interface Step {
  readonly node: Node;
  readonly name: string;
}

/**
 * The part of a file system that a path names, as a file system: a file, or a directory with all that is below it.
 * @throws PullError `path-not-found` that names the nearest thing on the way that is there
 */
function subtreeOf(
  tree: Pick<LayerTree, 'root' | 'rootIsStated'>,
  { path, asRoot }: Selection,
): Pick<LayerTree, 'root' | 'rootIsStated'> {
  const { root } = tree;
  const bytes = Buffer.from(path).toString('latin1');
  const { node, name } = find(root, bytes);
  if (node === root) return tree;
  if (asRoot && node.directory !== undefined) return { root: node, rootIsStated: true };
  const named = bytes.split('/').filter(isName).at(-1);
  const names = new Map([[named === undefined || named === '..' ? name : named, node]]);
  const inode = { ...root.inode, type: DIRECTORY };
  const directory = { names, parent: undefined, depth: 0 };
  return { root: { inode, directory, target: undefined }, rootIsStated: false };
}

function find(root: Node, path: string): Step {
  const way: Step[] = [{ node: root, name: '' }];
  const parts = path.split('/').filter(isName).reverse();
  // A link at the end that leads nowhere is itself what is there.
  let last: Step | undefined;
  for (let links = 0; parts.length > 0; ) {
    const name = parts.pop()!;
    if (name === '..') {
      if (way.length > 1) way.pop();
      continue;
    }
    const node = way.at(-1)!.node.directory?.names.get(name);
    if (node?.inode.type !== SYMLINK) {
      if (node === undefined) return last ?? notFound(path, way);
      way.push({ node, name });
      continue;
    }
    if (parts.length === 0) last ??= { node, name };
    links += 1;
    if (links > MAX_LINKS) return last ?? notFound(path, way);
    const { link } = node.inode;
    if (link.startsWith('/')) way.length = 1;
    parts.push(...link.split('/').filter(isName).reverse());
  }
  return way.at(-1)!;
}

/** @throws PullError always */
function notFound(path: string, way: readonly Step[]): never {
  const names = way.slice(1).map(({ name }) => name);
  const nearest = quote(`/${names.join('/')}`);
  const isDirectory = way.at(-1)!.node.directory !== undefined;
  const there = isDirectory ? `the nearest directory is ${nearest}` : `${nearest} is no directory`;
  throw new PullError('path-not-found', `the image has no ${quote(path)}: ${there}`);
}
