import {
  type BigIntStats,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs';
import { PullError } from '../../../src/format/error.js';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';

const READ_BYTES = 2 ** 20;
const SLASH = Buffer.from('/');

/**
 * A directory tree as a tar, piece by piece, in the order of the names' bytes. Files with several names become one
 * file and hard links; modes, owners and times are kept; what has no place in an image (sockets) is left out.
 * Reads synchronously: an asynchronous read would queue behind dozens of compressions on libuv's pool.
 * @throws PullError `metadata-malformed` when a file changes its size while it is read; errors of the file system
 */
export function* directoryTar(root: string): Generator<Buffer> {
  const firstNames = new Map<string, Buffer>();
  yield* walk(Buffer.from(root), Buffer.alloc(0), firstNames);
  yield TAR_END;
}

function* walk(dir: Buffer, prefix: Buffer, firstNames: Map<string, Buffer>): Generator<Buffer> {
  const names = readdirSync(dir, { encoding: 'buffer' });
  names.sort(Buffer.compare);
  for (const base of names) {
    const path = Buffer.concat([dir, SLASH, base]);
    const name = Buffer.concat([prefix, base]);
    const stats = lstatSync(path, { bigint: true });
    if (stats.isDirectory()) {
      const inside = Buffer.concat([name, SLASH]);
      yield tarHeader(itemOf(stats, '5', inside));
      yield* walk(path, inside, firstNames);
    } else if (stats.isSymbolicLink()) {
      const linkName = readlinkSync(path, { encoding: 'buffer' });
      yield tarHeader({ ...itemOf(stats, '2', name), linkName });
    } else if (stats.isFile()) {
      yield* fileOrLink(path, name, stats, firstNames);
    } else if (!stats.isSocket()) {
      yield tarHeader(specialItem(stats, name));
    }
  }
}

function* fileOrLink(
  path: Buffer,
  name: Buffer,
  stats: BigIntStats,
  firstNames: Map<string, Buffer>,
): Generator<Buffer> {
  if (stats.nlink > 1n) {
    const inode = `${stats.dev}:${stats.ino}`;
    const linkName = firstNames.get(inode);
    if (linkName !== undefined) {
      yield tarHeader({ ...itemOf(stats, '1', name), linkName });
      return;
    }
    firstNames.set(inode, name);
  }
  const sizeBytes = Number(stats.size);
  yield tarHeader({ ...itemOf(stats, '0', name), sizeBytes });
  yield* contentOf(path, sizeBytes);
  if (sizeBytes % 512 !== 0) yield tarPadding(sizeBytes);
}

function* contentOf(path: Buffer, sizeBytes: number): Generator<Buffer> {
  if (sizeBytes === 0) return;
  const file = openSync(path, 'r');
  try {
    for (let left = sizeBytes; left > 0; ) {
      const piece = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const readBytes = readSync(file, piece);
      if (readBytes === 0) {
        throw new PullError('metadata-malformed', `${path} became shorter while it was read`, {
          hint: 'run it again when nothing else writes there',
        });
      }
      left -= readBytes;
      yield piece.subarray(0, readBytes);
    }
  } finally {
    closeSync(file);
  }
}

function itemOf(stats: BigIntStats, type: TarItem['type'], name: Buffer): TarItem {
  // BigInt division rounds towards zero, a time before 1970 has to go down.
  const nanos = ((stats.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return {
    type,
    name,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    sizeBytes: 0,
    mtimeSeconds: Number((stats.mtimeNs - nanos) / 1_000_000_000n),
    mtimeNanos: Number(nanos),
  };
}

/** A fifo or a device; its number is taken apart as Linux puts it together (makedev(3)). */
function specialItem(stats: BigIntStats, name: Buffer): TarItem {
  if (stats.isFIFO()) return itemOf(stats, '6', name);
  const { rdev } = stats;
  const devMajor = Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n));
  const devMinor = Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n));
  return { ...itemOf(stats, stats.isBlockDevice() ? '4' : '3', name), devMajor, devMinor };
}
