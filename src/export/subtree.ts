import { PullError } from '../format/error.js';
import { DIRECTORY, SYMLINK } from './file-tree.js';
import type { LayerTree, Node } from './layer-tree.js';
import { isName, quote } from './tree-paths.js';

/** As many links as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** The part of a file system that is exported. */
export interface Selection {
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
export function subtreeOf(
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
