import type { SparseMap } from '../format/tar-sparse.js';
import { DIRECTORY, SYMLINK } from './file-tree.js';
import { isName, noFileSystem, quote, shallowFirst, workedOff } from './tree-paths.js';

/** What a path stands for, apart from its names. Text is latin1: a letter a byte. */
export interface Inode {
  readonly type: number;
  readonly layer: number;
  readonly contentStart: number;
  /** How long the content is: of a sparse file without its holes. */
  readonly sizeBytes: number;
  readonly sparse: SparseMap | undefined;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** What a symbolic link says. */
  readonly link: string;
  readonly xattrRecords: string;
  /** The first row that is written of it. */
  row: number;
}

/** A name in a directory. */
export interface Node {
  inode: Inode;
  /** Only directories have one. */
  readonly directory: Directory | undefined;
  /** Of a symbolic link: where it was last found to lead. */
  target: Target | undefined;
}

/** What a directory has. */
export interface Directory {
  readonly names: Map<string, Node>;
  readonly parent: Directory | undefined;
  /** How many directories it lies in. */
  readonly depth: number;
}

/** A directory that a path or a symbolic link was found to lead to. */
interface Target {
  readonly directory: Directory;
  /** Symbolic links on the way. */
  readonly links: number;
  /** Good while nothing has been taken away since: `LayerTree.#losses` then. */
  readonly losses: number;
}

/** As many as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;
/** Directories within directories: a path of PATH_MAX (4096) bytes cannot have more. */
const MAX_DEPTH = 2048;

/** What a `LayerTree` may do. */
export interface TreeLimits {
  /** Directories that no layer states and that are made for what lies in them. */
  readonly implied: number;
  /**
   * Parts of paths that are looked up or worked off, those of the symbolic links that are followed included. An image of the real
   * world takes two to ten for a name.
   */
  readonly steps: number;
}

/** What a layer has at a path that may be that of a symbolic link of a lower layer. */
export interface StatedPath {
  readonly path: string;
  /** The target, if it is a symbolic link. */
  readonly link: string | undefined;
}

/** What a directory that no layer states is like. All of them share it: nothing of a directory's inode is its own. */
const IMPLIED: Inode = {
  type: DIRECTORY,
  layer: 0,
  contentStart: 0,
  sizeBytes: 0,
  sparse: undefined,
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  devMajor: 0,
  devMinor: 0,
  link: '',
  xattrRecords: '',
  row: -1,
};

/**
 * The file system that layers make, one applied after the other (OCI image-spec, layer.md). Paths are resolved inside
 * it as in a chroot: `..` ends at the root, absolute links begin there, so no name leads out. Where a symbolic link leads is remembered
 * until a directory or a symbolic link is taken away, so that a link in many paths costs no more than one in one.
 */
export class LayerTree {
  readonly root: Node = { inode: IMPLIED, directory: newDirectory(undefined), target: undefined };
  /** Whether a layer states the root itself. */
  rootIsStated = false;
  readonly #limits: TreeLimits;
  #implied = 0;
  #steps = 0;
  /** How often a directory or a symbolic link was removed: since then any path may lead elsewhere. */
  #losses = 0;
  /** The path that was looked up last. The entries of a directory stand together in a tar. */
  #lastPath = '';
  #last: Target | undefined;
  /** Symbolic links that no path leads through. */
  readonly #closed = new Set<Node>();

  constructor(limits: TreeLimits) {
    this.#limits = limits;
  }

  /** Whether there is nothing in it. */
  get isEmpty(): boolean {
    return this.root.directory!.names.size === 0;
  }

  /**
   * Has no path lead through symbolic links for which a layer has something else, until `openLinks`. Of two of which one lies behind the
   * other only that one is replaced which fewer names lead to: the layer means what is below the new one.
   */
  closeReplaced(stated: readonly StatedPath[]): void {
    const linkAt = ({ path, link }: StatedPath) => {
      const node = this.#find(path);
      return node?.inode.type === SYMLINK && link !== node.inode.link ? node : undefined;
    };
    const candidates = stated.filter((each) => linkAt(each) !== undefined);
    for (const each of shallowFirst(candidates, ({ path }) => path)) {
      const link = linkAt(each);
      if (link === undefined) continue;
      this.#closed.add(link);
      this.#losses += 1;
    }
  }

  /** Lets paths lead through all links again. */
  openLinks(): void {
    if (this.#closed.size === 0) return;
    this.#closed.clear();
    this.#losses += 1;
  }

  /** Puts an entry at a path: a directory keeps what is below it, all else takes the place of what is there. */
  put(path: string, inode: Inode): void {
    const { parent, name } = this.#split(path);
    if (name === undefined) {
      if (inode.type !== DIRECTORY) return;
      this.root.inode = inode;
      this.rootIsStated = true;
      return;
    }
    const directory = this.#make(parent);
    const known = directory.names.get(name);
    if (inode.type === DIRECTORY && known?.directory !== undefined) known.inode = inode;
    else this.#set(directory, name, inode);
  }

  /**
   * The file that a hard link `path` to `target` is another name of.
   * @throws PullError `metadata-malformed` when there is none
   */
  fileAt(target: string, path: string): Inode {
    const known = this.#find(target);
    if (known === undefined || known.directory !== undefined)
      throw noFileSystem(
        `a layer has a hard link ${quote(path)} to ${quote(target)}, which is no file of the image`,
      );
    return known.inode;
  }

  /** Takes away what lower layers have at a path. */
  remove(path: string): void {
    const { parent, name } = this.#split(path);
    if (name === undefined) return;
    const names = this.#walk(parent, false)?.names;
    const known = names?.get(name);
    if (known === undefined) return;
    this.#noteLoss(known);
    names!.delete(name);
  }

  /** Takes away what lower layers have below a directory. */
  clear(path: string): void {
    const names = this.#walk(path, false)?.names;
    if (names === undefined || names.size === 0) return;
    this.#losses += 1;
    names.clear();
  }

  /**
   * Counts what work on this file system costs beside the tree.
   * @throws PullError `metadata-malformed` when it is more than the limit
   */
  spend(steps: number): void {
    this.#steps += steps;
    const { steps: most } = this.#limits;
    if (this.#steps > most) throw noFileSystem(`its paths and links take more than ${most} steps to follow`);
  }

  #find(path: string): Node | undefined {
    const { parent, name } = this.#split(path);
    return name === undefined ? this.root : this.#walk(parent, false)?.names.get(name);
  }

  /** A path's last name, which the root has not, and the path of the directory that it is in. */
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
    return workedOff(parts);
  }

  #set(directory: Directory, name: string, inode: Inode): Node {
    const known = directory.names.get(name);
    if (known !== undefined) this.#noteLoss(known);
    const own = inode.type === DIRECTORY ? newDirectory(directory) : undefined;
    const node = { inode, directory: own, target: undefined };
    directory.names.set(name, node);
    return node;
  }

  #imply(parent: Directory, name: string): Directory {
    this.#implied += 1;
    const { implied: most } = this.#limits;
    if (this.#implied > most) throw noFileSystem(`more than ${most} directories in it have no entry`);
    return this.#set(parent, name, IMPLIED).directory!;
  }

  #noteLoss({ inode, directory }: Node): void {
    if (directory !== undefined || inode.type === SYMLINK) this.#losses += 1;
  }

  #make(path: string): Directory {
    return this.#walk(path, true)!;
  }

  /** The directory that a path leads to, symbolic links followed; with `make`, what is none becomes one. */
  #walk(path: string, make: boolean): Directory | undefined {
    if (this.#last?.losses === this.#losses && path === this.#lastPath) return this.#last.directory;
    const found = this.#follow(this.root.directory!, this.#partsOf(path), make, 0);
    if (found === undefined) return undefined;
    this.#last = found;
    this.#lastPath = path;
    return found.directory;
  }

  /** Where these parts lead from a directory; `linksBefore` have been followed on the way to it. */
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
      if (next?.inode.type === SYMLINK && !this.#closed.has(next)) {
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

/** @throws PullError `metadata-malformed` when it lies too deep */
function newDirectory(parent: Directory | undefined): Directory {
  const depth = parent === undefined ? 0 : parent.depth + 1;
  if (depth > MAX_DEPTH) throw noFileSystem(`directories lie more than ${MAX_DEPTH} deep`);
  return { names: new Map(), parent, depth };
}
