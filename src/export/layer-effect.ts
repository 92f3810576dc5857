import type { TarSource } from '../format/tar-entries.js';
import { DIRECTORY, SYMLINK } from './file-tree.js';
import { MAX_STEPS, MAX_TEXT_BYTES } from './flatten.js';
import { type LayerChanges, LayerReader, MAX_ENTRIES, OPAQUE, WHITEOUT } from './layer-changes.js';
import { LayerTree } from './layer-tree.js';
import { isName } from './tree-nodes.js';

/**
 * What a layer does to what the layers below it have at a path and beneath: it hides all of that, or part of it at most. `unclear`: what it does to
 * that path, or any other, may depend on the layers below it.
 */
export type LayerEffect = 'covers' | 'leaves' | 'unclear';

/**
 * The effect of a layer on a path, whatever lies below it. It is clear only of layers that state each directory before what is in it, so that no
 * symbolic link below leads their names elsewhere, link only to files of their own, and have no symbolic link on the way.
 * @param names those on the way from the root, at least one and no `..`; a letter a byte
 * @throws PullError as `flatten`, for what this layer alone has
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

/** The directories of a layer, and whether one of its files stands on the way; undefined for what is not clear. */
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

/** What a whiteout hides, as a path with a slash at its end; undefined for what is not clear. */
function hiddenBy(whiteout: string, directories: ReadonlySet<string>): string | undefined {
  const own = literal(whiteout);
  if (own === undefined || !directories.has(parentOf(own))) return undefined;
  const parent = own.slice(0, own.lastIndexOf('/') + 1);
  const name = own.slice(parent.length);
  if (name === OPAQUE) return parent;
  const hidden = name.slice(WHITEOUT.length);
  return ['', '.', '..'].includes(hidden) ? undefined : `${parent}${hidden}/`;
}

/** The path as it stands, undefined where it goes up. */
function literal(path: string): string | undefined {
  const names = path.split('/').filter(isName);
  return names.includes('..') ? undefined : names.join('/');
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
