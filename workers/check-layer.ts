import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestOfBytes } from '../src/format/digest.js';
import { tarSpans } from '../src/format/tar-names.js';
import type { CheckLayerResult, CheckLayerTask } from '../src/pool/messages.js';
import type { ExtentList } from '../src/store/extents.js';
import { findRot, type TarPart } from '../src/store/find-rot.js';
import { NotInPack, PackReader } from '../src/store/pack-reader.js';
import { paths } from './context.js';
import { extentsOf } from './extents.js';

/** Blocks of 1 MiB hashed between two moments at which the thread can be ended: about 4 ms. */
const BLOCKS_A_TURN = 8;

/** Hashes a layer; one that is not its DiffID's is looked through for what is false. */
export async function checkLayer(task: CheckLayerTask): Promise<CheckLayerResult> {
  const reader = new PackReader(paths);
  const extents = extentsOf(task.extents);
  try {
    if ((await hashOf(reader, extents)) === task.diffId) return { whole: true, falsePaths: [] };
    const parts = findRot(paths, reader, extents);
    return { whole: false, falsePaths: namesOf(reader, extents, parts) };
  } finally {
    reader.close();
  }
}

/** The digest of all extents, or undefined when a pack does not have all of them. */
async function hashOf(reader: PackReader, extents: ExtentList): Promise<string | undefined> {
  const hash = createHash('sha256');
  let blocks = 0;
  try {
    for (const block of reader.blocks(extents)) {
      hash.update(block);
      blocks += 1;
      if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
    }
  } catch (error) {
    if (error instanceof NotInPack) return undefined;
    throw error;
  }
  return digestOfBytes(hash.digest());
}

/** The names of the tar's entries that have a byte in one of these parts, which are in order. */
function namesOf(reader: PackReader, extents: ExtentList, parts: readonly TarPart[]): string[] {
  const names = new Set<string>();
  const read = (start: number, lengthBytes: number) => readTar(reader, extents, start, lengthBytes);
  let next = 0;
  for (const { path, start, end } of tarSpans(read, extents.lengthBytes)) {
    while (next < parts.length && parts[next]!.end <= start) next += 1;
    if (next === parts.length) break;
    if (parts[next]!.start < end) names.add(path);
  }
  return [...names];
}

/** Bytes of the tar, or undefined when a pack does not have them. */
function readTar(
  reader: PackReader,
  extents: ExtentList,
  start: number,
  lengthBytes: number,
): Buffer | undefined {
  const bytes = Buffer.alloc(lengthBytes);
  const part = extents.slice(start, start + lengthBytes);
  try {
    for (let i = 0; i < part.count; i++)
      reader.readInto(bytes, part.startAt(i), part.packAt(i), part.offsetAt(i), part.lengthAt(i));
  } catch (error) {
    if (error instanceof NotInPack) return undefined;
    throw error;
  }
  return bytes;
}
