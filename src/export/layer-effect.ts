import type { TarSource } from '../format/tar-entries.js';
import { DIRECTORY, SYMLINK } from './file-tree.js';
import { MAX_STEPS, MAX_TEXT_BYTES } from './flatten.js';
import { type LayerChanges, LayerReader, MAX_ENTRIES, OPAQUE, WHITEOUT } from './layer-changes.js';
import { LayerTree } from './layer-tree.js';
import { isName } from './tree-nodes.js';

/**
 * Effect of a layer on what lower layers have at a path and below it: it hides everything
 * (`covers`), or not everything (`leaves`). `unclear`: its effect on any path may depend on the
 * layers below.
 */
export type LayerEffect = 'covers' | 'leaves' | 'unclear';

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
  const wanted = names.join('/');
  const own = ownDirectories(changes, wanted);
  if (own === undefined) return 'unclear';
  let covers = own.covers;
  for (const whiteout of changes.whiteouts) {
    const hidden = hiddenBy(whiteout, own.directories);
    if (hidden === undefined) return 'unclear';
    covers ||= `${wanted}/`.startsWith(hidden);
  }
  return covers ? 'covers' : 'leaves';
}

/**
 * Returns the directories of a layer and whether a file of it is on the way; undefined if unclear.
 */
function ownDirectories({ named }: LayerChanges, wanted: string) {
  const directories = new Set(['']);
  const files = new Set<string>();
  let covers = false;
  for (const { path, what, isHidden } of named) {
    const own = literal(path);
    if (isHidden || own === undefined || !directories.has(parentOf(own))) return undefined;
    const isLink = typeof what === 'string';
    if (!isLink && what.type === DIRECTORY) {
      directories.add(own);
      continue;
    }
    if (directories.has(own) || (isLink && !files.has(literal(what) ?? ''))) return undefined;
    const isOnTheWay = `${wanted}/`.startsWith(`${own}/`);
    covers ||= isOnTheWay;
    if (isLink || what.type !== SYMLINK) files.add(own);
    else if (isOnTheWay) return undefined;
    else files.delete(own);
  }
  return { directories, covers };
}

/** Returns what a whiteout hides, as a path that ends in a slash; undefined if unclear. */
function hiddenBy(whiteout: string, directories: ReadonlySet<string>): string | undefined {
  const own = literal(whiteout);
  if (own === undefined || !directories.has(parentOf(own))) return undefined;
  const parent = own.slice(0, own.lastIndexOf('/') + 1);
  const name = own.slice(parent.length);
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
