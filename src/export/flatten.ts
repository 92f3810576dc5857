import { PullError } from '../format/error.js';
import type { TarSource } from '../format/tar-entries.js';
import { DIRECTORY, type FileTree, SYMLINK } from './file-tree.js';
import {
  AUFS,
  type FileListener,
  type LayerChanges,
  LayerReader,
  MAX_ENTRIES,
  MAX_STEPS,
  MAX_TEXT_BYTES,
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
  rowsOf,
  shallowFirst,
} from './tree-nodes.js';

/**
 * Limit of directories without an entry: 160 MB of memory. A path of 4 KB can imply 2,048 of them.
 */
const MAX_IMPLIED = MAX_ENTRIES / 8;
interface FlattenLimits {
  readonly maxSteps?: number;
  readonly maxImplied?: number;
  readonly maxTextBytes?: number;
  readonly maxEntries?: number;
  /** Whether names and links that Linux does not accept are refused. */
  readonly intoFiles?: boolean;
  /** The part of the file system to export; default: all of it. */
  readonly only?: Selection | undefined;
}

/**
 * Flattens layers, lowest first, to one file system. Reads their headers alone. `docs/exports.md`
 * describes what it does where programs differ.
 * @throws PullError `metadata-malformed` when a layer is not a tar or contradicts the layers below
 *   it, `unsupported` for entry types that images do not have; as `subtreeOf`; as the source's
 *   `read`
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
 * Applies a layer: first its whiteouts, wherever they are in the tar, then its other entries in the
 * order of the tar. `hidden` has the files outside of the tree to which hard links may lead, by
 * path.
 */
function applyLayer(tree: LayerTree, { named, whiteouts }: LayerChanges, hidden: Map<string, Inode>): void {
  let at = '';
  try {
    // A whiteout applies to the directory of its own layer, not to the target of a link that this
    // directory replaces.
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

/** Adds the path of the entry to an error that does not name it. */
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

/**
 * @throws PullError for a whiteout of the directory itself or its parent; containerd refuses these,
 *   too
 */
function whiteoutTarget(whiteout: string, path: string): string {
  const name = whiteout.slice(WHITEOUT.length);
  if (['', '.', '..'].includes(name)) throw noFileSystem(`${quote(path)} names no file to remove`);
  return name;
}

/**
 * Adds number and DiffID of the layer to an error about its content. The lowest layer has number 1.
 */
function ofLayer(error: unknown, layer: number, { length, [layer]: source }: readonly TarSource[]): unknown {
  if (!(error instanceof PullError) || !['metadata-malformed', 'unsupported'].includes(error.code))
    return error;
  const { code, message, hint } = error;
  const diffId = source?.diffId;
  const where = `layer ${layer + 1} of ${length}${diffId === undefined ? '' : `, ${diffId}`}`;
  return new PullError(code, `${message} (${where})`, { hint, layer: diffId, cause: error });
}

/** The part of a file system to export. */
interface Selection {
  /**
   * Path from the root of the image, with or without a leading slash; all links are followed inside
   * the image.
   */
  readonly path: string;
  /** Whether a directory becomes the root of the export; otherwise it keeps its name. */
  readonly asRoot: boolean;
}

interface Step {
  readonly node: Node;
  readonly name: string;
}

/**
 * Returns the part of a file system at a path, as a file system: a file, or a directory with
 * everything below it.
 * @throws PullError `path-not-found`, which names the nearest existing directory or file
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
  const trail: Step[] = [{ node: root, name: '' }];
  const parts = path.split('/').filter(isName).reverse();
  // A dangling link at the end is the result itself.
  let last: Step | undefined;
  for (let links = 0; parts.length > 0; ) {
    const name = parts.pop()!;
    if (name === '..') {
      if (trail.length > 1) trail.pop();
      continue;
    }
    const node = trail.at(-1)!.node.directory?.names.get(name);
    if (node?.inode.type !== SYMLINK) {
      if (node === undefined) return last ?? notFound(path, trail);
      trail.push({ node, name });
      continue;
    }
    if (parts.length === 0) last ??= { node, name };
    links += 1;
    if (links > MAX_LINKS) return last ?? notFound(path, trail);
    const { link } = node.inode;
    if (link.startsWith('/')) trail.length = 1;
    parts.push(...link.split('/').filter(isName).reverse());
  }
  return trail.at(-1)!;
}

function notFound(path: string, trail: readonly Step[]): never {
  const names = trail.slice(1).map(({ name }) => name);
  const nearest = quote(`/${names.join('/')}`);
  const isDirectory = trail.at(-1)!.node.directory !== undefined;
  const nearestText = isDirectory ? `the nearest directory is ${nearest}` : `${nearest} is no directory`;
  throw new PullError('path-not-found', `the image has no ${quote(path)}: ${nearestText}`);
}
