import { DIRECTORY, SYMLINK } from './file-tree.js';
import {
  type Directory,
  IMPLIED,
  type Inode,
  isName,
  MAX_LINKS,
  type Node,
  newDirectory,
  noFileSystem,
  normalize,
  quote,
  shallowFirst,
  type Target,
} from './tree-nodes.js';

/** Limits of a `LayerTree`. */
export interface TreeLimits {
  /** Directories without an entry, which the paths of other entries imply. */
  readonly implied: number;
  /**
   * Parts of paths that are looked up or normalized, including those of symbolic links that are
   * followed. Real images take two to ten for each name.
   */
  readonly steps: number;
}

/** A path of a layer, where a lower layer may have a symbolic link. */
export interface StatedPath {
  readonly path: string;
  /** Target of a symbolic link; undefined for other types. */
  readonly link: string | undefined;
}

/**
 * The file system that results from applying layers one after the other (OCI image-spec, layer.md).
 * Paths resolve inside it as in a chroot: `..` ends at the root and absolute links begin there. The
 * targets of symbolic links are cached until a directory or a symbolic link is removed, so that a
 * link is followed once and not for every path through it.
 */
export class LayerTree {
  readonly root: Node = { inode: IMPLIED, directory: newDirectory(undefined), target: undefined };
  /** Whether a layer has an entry for the root itself. */
  rootIsStated = false;
  readonly #limits: TreeLimits;
  #implied = 0;
  #steps = 0;
  /** Number of directories and symbolic links removed so far: each may change where paths lead. */
  #losses = 0;
  /** Cache of the last lookup: the entries of a directory follow each other in a tar. */
  #lastPath = '';
  #last: Target | undefined;
  /** Symbolic links that are not followed for now. */
  readonly #blocked = new Set<Node>();

  constructor(limits: TreeLimits) {
    this.#limits = limits;
  }

  get isEmpty(): boolean {
    return this.root.directory!.names.size === 0;
  }

  /**
   * Stops following the symbolic links that the paths of a layer replace, until `unblockLinks`.
   * Where one of these paths leads through another, only the shallower link is replaced: the deeper
   * path lies below what the layer puts in its place.
   */
  blockReplacedLinks(stated: readonly StatedPath[]): void {
    const linkAt = ({ path, link }: StatedPath) => {
      const node = this.#find(path);
      return node?.inode.type === SYMLINK && link !== node.inode.link ? node : undefined;
    };
    const candidates = stated.filter((each) => linkAt(each) !== undefined);
    for (const each of shallowFirst(candidates, ({ path }) => path)) {
      const link = linkAt(each);
      if (link === undefined) continue;
      this.#blocked.add(link);
      this.#losses += 1;
    }
  }

  /** Follows all links again. */
  unblockLinks(): void {
    if (this.#blocked.size === 0) return;
    this.#blocked.clear();
    this.#losses += 1;
  }

  /**
   * Puts an entry at a path and replaces what is there, except that a directory keeps its entries.
   */
  put(path: string, inode: Inode): void {
    const { parent, name } = this.#split(path);
    if (name === undefined) {
      if (inode.type !== DIRECTORY) return;
      this.root.inode = inode;
      this.rootIsStated = true;
      return;
    }
    const directory = this.#walk(parent, true)!;
    const known = directory.names.get(name);
    if (inode.type === DIRECTORY && known?.directory !== undefined) known.inode = inode;
    else this.#set(directory, name, inode);
  }

  /**
   * Returns the file that the hard link `path` to `target` names.
   * @throws PullError `metadata-malformed` when `target` is missing or a directory
   */
  fileAt(target: string, path: string): Inode {
    const known = this.#find(target);
    if (known === undefined || known.directory !== undefined)
      throw noFileSystem(
        `a layer has a hard link ${quote(path)} to ${quote(target)}, which is no file of the image`,
      );
    return known.inode;
  }

  /** Removes a path. */
  remove(path: string): void {
    const { parent, name } = this.#split(path);
    if (name === undefined) return;
    const names = this.#walk(parent, false)?.names;
    const known = names?.get(name);
    if (known === undefined) return;
    this.#noteLoss(known);
    names!.delete(name);
  }

  /** Removes everything below a directory. */
  clear(path: string): void {
    const names = this.#walk(path, false)?.names;
    if (names === undefined || names.size === 0) return;
    this.#losses += 1;
    names.clear();
  }

  /**
   * Counts steps of work, including work outside the tree.
   * @throws PullError `metadata-malformed` above the limit
   */
  spend(steps: number): void {
    this.#steps += steps;
    const { steps: max } = this.#limits;
    if (this.#steps > max) throw noFileSystem(`its paths and links take more than ${max} steps to follow`);
  }

  #find(path: string): Node | undefined {
    const { parent, name } = this.#split(path);
    return name === undefined ? this.root : this.#walk(parent, false)?.names.get(name);
  }

  /** Splits a path into its directory and its last name, which is undefined for the root. */
  #split(path: string): { parent: string; name: string | undefined } {
    const end = path.endsWith('/') ? path.length - 1 : path.length;
    const slash = path.lastIndexOf('/', end - 1);
    const name = path.slice(slash + 1, end);
    if (isName(name) && name !== '..') return { parent: path.slice(0, Math.max(0, slash)), name };
    const parts = this.#partsOf(path);
    return { name: parts.pop(), parent: parts.join('/') };
  }

  #partsOf(path: string): string[] {
    const parts = path.split('/');
    this.spend(parts.length);
    return normalize(parts);
  }

  #set(directory: Directory, name: string, inode: Inode): Node {
    const known = directory.names.get(name);
    if (known !== undefined) this.#noteLoss(known);
    const entries = inode.type === DIRECTORY ? newDirectory(directory) : undefined;
    const node = { inode, directory: entries, target: undefined };
    directory.names.set(name, node);
    return node;
  }

  #imply(parent: Directory, name: string): Directory {
    this.#implied += 1;
    const { implied: max } = this.#limits;
    if (this.#implied > max) throw noFileSystem(`more than ${max} directories in it have no entry`);
    return this.#set(parent, name, IMPLIED).directory!;
  }

  #noteLoss({ inode, directory }: Node): void {
    if (directory !== undefined || inode.type === SYMLINK) this.#losses += 1;
  }

  /**
   * Follows a path to a directory. `make` creates missing directories and replaces files by them.
   */
  #walk(path: string, make: boolean): Directory | undefined {
    if (this.#last?.losses === this.#losses && path === this.#lastPath) return this.#last.directory;
    const found = this.#follow(this.root.directory!, this.#partsOf(path), make, 0);
    if (found === undefined) return undefined;
    this.#last = found;
    this.#lastPath = path;
    return found.directory;
  }

  /** Follows the parts of a path from `start`, to which `linksBefore` links have led already. */
  #follow(
    start: Directory,
    parts: readonly string[],
    make: boolean,
    linksBefore: number,
  ): Target | undefined {
    let directory = start;
    let links = 0;
    this.spend(parts.length);
    for (const part of parts) {
      if (!isName(part)) continue;
      if (part === '..') {
        directory = directory.parent ?? directory;
        continue;
      }
      const next = directory.names.get(part);
      if (next?.inode.type === SYMLINK && !this.#blocked.has(next)) {
        const target = this.#followLink(directory, part, next, make, linksBefore + links);
        if (target === undefined) return undefined;
        links += target.links;
        directory = target.directory;
        continue;
      }
      if (next?.directory === undefined) {
        if (!make) return undefined;
        directory = this.#imply(directory, part);
      } else {
        directory = next.directory;
      }
    }
    return { directory, links, losses: this.#losses };
  }

  #followLink(
    from: Directory,
    name: string,
    node: Node,
    make: boolean,
    linksBefore: number,
  ): Target | undefined {
    let target = node.target?.losses === this.#losses ? node.target : undefined;
    if (linksBefore + (target?.links ?? 1) > MAX_LINKS) {
      throw noFileSystem(`${quote(name)} leads through more than ${MAX_LINKS} links`);
    }
    if (target !== undefined) return target;
    const { link } = node.inode;
    const start = link.startsWith('/') ? this.root.directory! : from;
    const found = this.#follow(start, link.split('/'), make, linksBefore + 1);
    if (found === undefined) return undefined;
    target = { ...found, links: found.links + 1 };
    node.target = target;
    return target;
  }
}
