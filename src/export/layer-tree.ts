import { PullError } from '../format/error.js';
import { DIRECTORY, SYMLINK } from './file-tree.js';

/** What a path stands for, apart from its names. Text is latin1: a letter a byte. */
export interface Inode {
  readonly type: number;
  readonly layer: number;
  readonly contentStart: number;
  readonly sizeBytes: number;
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

/** A name in a directory; only directories have names below them. */
export interface Node {
  inode: Inode;
  children: Map<string, Node> | undefined;
}

/** As many as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;
/** Directories within directories: a path of PATH_MAX (4096) bytes cannot have more. */
const MAX_DEPTH = 2048;

/** What a directory that no layer states is like. */
const IMPLIED: Inode = {
  type: DIRECTORY,
  layer: 0,
  contentStart: 0,
  sizeBytes: 0,
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
 * it as in a chroot: `..` ends at the root, absolute links begin there, so no name leads out.
 */
export class LayerTree {
  readonly root: Node = directory();
  /** Whether a layer states the root itself. */
  rootIsStated = false;

  /** Puts an entry at a path: a directory keeps what is below it, all else takes the place of what is there. */
  put(path: string, inode: Inode): void {
    const parts = partsOf(path);
    const name = parts.pop();
    if (name === undefined) {
      if (inode.type !== DIRECTORY) return;
      this.root.inode = inode;
      this.rootIsStated = true;
      return;
    }
    const names = this.#make(parts).children!;
    const known = names.get(name);
    if (inode.type === DIRECTORY && known?.children !== undefined) known.inode = inode;
    else names.set(name, { inode, children: inode.type === DIRECTORY ? new Map() : undefined });
  }

  /**
   * Gives what is at `target` another name.
   * @throws PullError `metadata-malformed` when there is nothing, or a directory
   */
  link(path: string, target: string): void {
    const parts = partsOf(path);
    const name = parts.pop();
    const known = this.#find(target);
    if (known === undefined || known.children !== undefined || name === undefined) {
      throw new PullError(
        'metadata-malformed',
        `a layer has a hard link ${quote(path)} to ${quote(target)}, which is no file of the image`,
      );
    }
    this.#make(parts).children!.set(name, { inode: known.inode, children: undefined });
  }

  /** Takes away what lower layers have at a path. */
  remove(path: string): void {
    const parts = partsOf(path);
    const name = parts.pop();
    if (name !== undefined) this.#walk(parts, false)?.children?.delete(name);
  }

  /** Takes away what lower layers have below a directory. */
  clear(path: string): void {
    this.#walk(partsOf(path), false)?.children?.clear();
  }

  #find(path: string): Node | undefined {
    const parts = partsOf(path);
    const name = parts.pop();
    return name === undefined ? this.root : this.#walk(parts, false)?.children?.get(name);
  }

  #make(parts: readonly string[]): Node {
    return this.#walk(parts, true)!;
  }

  /** The directory that a path leads to, symbolic links followed; with `make`, what is none becomes one. */
  #walk(parts: readonly string[], make: boolean): Node | undefined {
    const stack = [this.root];
    const left = parts.toReversed();
    let links = 0;
    for (let part = left.pop(); part !== undefined; part = left.pop()) {
      if (part === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const { children } = stack.at(-1)!;
      let next = children!.get(part);
      if (next?.inode.type === SYMLINK) {
        links += 1;
        if (links > MAX_LINKS) throw malformed(`${quote(part)} leads through more than ${MAX_LINKS} links`);
        const { link } = next.inode;
        if (link.startsWith('/')) stack.length = 1;
        left.push(...link.split('/').filter(isName).reverse());
        continue;
      }
      if (next?.children === undefined) {
        if (!make) return undefined;
        next = directory();
        children!.set(part, next);
      }
      if (stack.push(next) > MAX_DEPTH) throw malformed(`directories lie more than ${MAX_DEPTH} deep`);
    }
    return stack.at(-1);
  }
}

function directory(): Node {
  return { inode: { ...IMPLIED }, children: new Map() };
}

/** The names that a path has after `.` and `..` are worked off; `..` at the root is the root. */
export function partsOf(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (isName(part)) parts.push(part);
  }
  return parts;
}

function isName(part: string): boolean {
  return part !== '' && part !== '.';
}

function quote(text: string): string {
  return JSON.stringify(Buffer.from(text, 'latin1').toString().slice(0, 200));
}

function malformed(what: string): PullError {
  return new PullError('metadata-malformed', `the layers make no file system: ${what}`);
}
