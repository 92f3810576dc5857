import { PullError } from '../format/error.js';
import type { TarSource } from '../format/tar-entries.js';
import { type FileTree, SYMLINK } from './file-tree.js';
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
import { type Inode, LayerTree, type StatedPath } from './layer-tree.js';
import { type Selection, subtreeOf } from './subtree.js';
import { noFileSystem, partsOf, quote, shallowFirst } from './tree-paths.js';
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
    if (whiteouts.length > 0 && !tree.isEmpty) tree.closeReplaced(statedPaths(named));
    for (at of shallowFirst(whiteouts, (path) => path)) takeAway(tree, at);
    tree.openLinks();
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

function takeAway(tree: LayerTree, path: string): void {
  const parts = partsOf(path);
  const name = parts.pop() ?? '';
  const parent = parts.join('/');
  if (name === OPAQUE) tree.clear(parent);
  else tree.remove(`${parent}/${nameTakenAway(name, path)}`);
}

/** @throws PullError for what would take the directory itself away, or the one above, as containerd refuses it */
function nameTakenAway(whiteout: string, path: string): string {
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
