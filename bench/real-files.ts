import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../src/format/tar-writer.js';

/** A file, directory or symbolic link of this machine. */
interface RealFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly item: TarItem;
}

const READ_BYTES = 2 ** 20;
/** An update changes one file in nine. */
const CHANGED_SHARE = 1 / 9;
/** In such a file every so many bytes one differs: no chunk of it is as it was. */
const CHANGE_EVERY_BYTES = 1024;

/** The tars of some files below a directory, in two versions. */
export interface RealTars {
  /** Writes them as so many layers of these shares, each a run of neighbours. @returns their paths, `prefix`0 being the lowest */
  write(prefix: string, shares: readonly number[], version: 1 | 2): string[];
}

/**
 * Chooses files below `root` of `mostBytes` in all, of every kind as many as there are: by the hash of their names, so that the same files are
 * chosen each time. What this user may not read is left out.
 */
export function chooseFiles(root: string, mostBytes: number): RealTars {
  const all = listFiles(root);
  const allBytes = all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const share = Math.min(1, mostBytes / allBytes);
  const chosen = all.filter(({ item, path }) => item.type === '5' || lot(path) < share);
  const chosenBytes = chosen.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return {
    write(prefix, shares, version) {
      const paths: string[] = [];
      let from = 0;
      let shareSoFar = 0;
      let bytes = 0;
      for (const [layer, own] of shares.entries()) {
        shareSoFar += own;
        let to = from;
        const isLast = layer === shares.length - 1;
        while (to < chosen.length && (isLast || bytes < shareSoFar * chosenBytes)) {
          bytes += chosen[to]!.sizeBytes;
          to += 1;
        }
        const path = `${prefix}${layer}`;
        writeTar(path, chosen.slice(from, to), version);
        paths.push(path);
        from = to;
      }
      return paths;
    },
  };
}

/** A number from 0 up to 1 that a text always has. */
function lot(text: string): number {
  return crc32(text) / 2 ** 32;
}

function listFiles(root: string): RealFile[] {
  const files: RealFile[] = [];
  const walk = (directory: string, name: string): void => {
    for (const base of namesIn(directory)) {
      const path = join(directory, base);
      const file = describe(path, `${name}${base}`);
      if (file === undefined) continue;
      files.push(file);
      if (file.item.type === '5') walk(path, file.item.name as string);
    }
  };
  walk(root, '');
  return files;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return [];
    throw error;
  }
}

/** Undefined for what has no place in the sample: a device, or a file of no known size. */
function describe(path: string, name: string): RealFile | undefined {
  const stats = lstatSync(path);
  const type = stats.isDirectory() ? '5' : stats.isSymbolicLink() ? '2' : stats.isFile() ? '0' : undefined;
  if (type === undefined) return undefined;
  const sizeBytes = type === '0' ? stats.size : 0;
  const { uid, gid, mode } = stats;
  const item: TarItem = {
    type,
    name: type === '5' ? `${name}/` : name,
    ...(type === '2' && { linkName: readlinkSync(path) }),
    mode: mode & 0o7777,
    uid,
    gid,
    sizeBytes,
    mtimeSeconds: Math.floor(stats.mtimeMs / 1000),
    mtimeNanos: 0,
  };
  return { path, sizeBytes, item };
}

function writeTar(to: string, files: readonly RealFile[], version: 1 | 2): void {
  const tar = openSync(to, 'wx');
  const block = Buffer.allocUnsafe(READ_BYTES);
  try {
    for (const { path, sizeBytes, item } of files) {
      const isChanged = version === 2 && lot(`changed ${path}`) < CHANGED_SHARE;
      const source = item.type === '0' ? openReadable(path) : undefined;
      if (item.type === '0' && source === undefined) continue;
      writeSync(tar, tarHeader(item));
      if (source === undefined) continue;
      try {
        for (let at = 0; at < sizeBytes; ) {
          const read = readSync(source, block, 0, Math.min(READ_BYTES, sizeBytes - at), at);
          if (read === 0) throw new Error(`${path} became shorter while it was read`);
          if (isChanged) for (let i = 0; i < read; i += CHANGE_EVERY_BYTES) block[i]! ^= 1;
          writeSync(tar, block, 0, read);
          at += read;
        }
      } finally {
        closeSync(source);
      }
      writeSync(tar, tarPadding(sizeBytes));
    }
    writeSync(tar, TAR_END);
  } finally {
    closeSync(tar);
  }
}

function openReadable(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  }
}
