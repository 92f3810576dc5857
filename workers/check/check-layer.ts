import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BLOCK_BYTES, BlockTags, PartTags } from '../../src/export/block-tags.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { tarSpans } from '../../src/format/tar-entries.js';
import type {
  BlockTagRows,
  CheckLayerResult,
  CheckLayerTask,
  CopyRunsResult,
  CopyRunsTask,
} from '../../src/pool/messages.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { copyRuns as copyInStore } from '../../src/store/copy-runs.js';
import { findCorruption, type TarPart } from '../../src/store/corruption.js';
import { ExtentList } from '../../src/store/extents.js';
import { removePack } from '../../src/store/pack-files.js';
import { ifMissing, PackReader } from '../../src/store/pack-reader.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { paths } from '../context.js';

/** Blocks hashed before the thread can be stopped: 8 MiB, about 8 ms. */
const BLOCKS_A_TURN = 32;

/** Hashes a layer. If it does not have its DiffID, finds and marks the wrong pieces. */
export async function checkLayer(task: CheckLayerTask): Promise<CheckLayerResult> {
  const reader = new PackReader(paths);
  const extents = ExtentList.fromRows(task.extents);
  try {
    const { digest, changed } = await hashOf(reader, extents, task.tags && comparisonWith(task.tags));
    if (digest === task.diffId) return { isIntact: true, changed, falsePaths: [] };
    const parts = findCorruption(paths, reader, extents);
    return { isIntact: false, changed, falsePaths: namesOf(reader, extents, parts) };
  } finally {
    reader.close();
  }
}

interface Hashed {
  /** Undefined if a pack has lost some bytes. */
  readonly digest: string | undefined;
  readonly changed: boolean;
}

/** Returns whether other threads read the same bytes of a block. */
type Agrees = (block: number, bytes: Buffer) => boolean;

function comparisonWith(rows: BlockTagRows): Agrees {
  const tags = new BlockTags(rows);
  const parts = new PartTags(rows);
  // In this order: `HeaderComparison`.
  return (block, bytes) => tags.agrees(block, bytes) && parts.agrees(block, bytes);
}

/** Hashes all extents, and compares the same bytes with the tags. */
async function hashOf(reader: PackReader, extents: ExtentList, agrees: Agrees | undefined): Promise<Hashed> {
  const hash = createHash('sha256');
  let changed = false;
  let block = 0;
  let started = threadClock.start();
  try {
    for (const bytes of reader.blocks(extents, BLOCK_BYTES)) {
      hash.update(bytes);
      if (agrees?.(block, bytes) === false) changed = true;
      threadClock.end('hash', started, bytes.length);
      block += 1;
      if (block % BLOCKS_A_TURN === 0) await nextTurn();
      started = threadClock.start();
    }
  } catch (error) {
    return ifMissing(error, { digest: undefined, changed });
  }
  return { digest: digestOfBytes(hash.digest()), changed };
}

/** Returns the names of the tar's entries with a byte in one of these parts, which are in order. */
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

/** Returns bytes of the tar, or undefined if a pack has lost them. */
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
    return ifMissing(error, undefined);
  }
  return bytes;
}

/** Copies runs of packs into a new pack, which is deleted after an error. */
export async function copyRuns(task: CopyRunsTask): Promise<CopyRunsResult> {
  const reader = new PackReader(paths);
  const writer = new PackWriter(paths);
  const { pack } = writer.reserve(0);
  try {
    const copying = copyInStore(paths, reader, writer, task.sources);
    for (;;) {
      const step = copying.next();
      if (step.done === true) {
        writer.close();
        return { pack, starts: step.value };
      }
      await nextTurn();
    }
  } catch (error) {
    await removePack(paths, pack);
    throw error;
  } finally {
    reader.close();
  }
}
