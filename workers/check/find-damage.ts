import { setImmediate as nextTurn } from 'node:timers/promises';
import { DIGEST_BYTES, digestBytes } from '../../src/format/digest.js';
import type { LayerTable } from '../../src/format/layer-table.js';
import { copyTarBytes } from '../../src/format/tar-split.js';
import type { FindDamageResult, FindDamageTask } from '../../src/pool/messages.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { markCorrupt } from '../../src/store/corruption.js';
import { ExtentList } from '../../src/store/extents.js';
import { hasDigest, ifMissing, PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { UnitCursor } from '../fetch/content-checker.js';
import { releaseLargeGarbage } from '../garbage.js';
import { MetadataSource, readTarSplit } from '../metadata/metadata-source.js';

/** Bytes hashed before other tasks of this thread may run: about 8 ms. */
const BYTES_A_TURN = 8 * 2 ** 20;

/** Rows of contents with a wrong digest, and of their chunks with one. */
type WrongContents = Pick<FindDamageResult, 'contents' | 'chunks'>;

/**
 * Compares a layer on disk with its metadata: contents by digest, everything else with tar-split.
 */
export async function findDamage(task: FindDamageTask): Promise<FindDamageResult> {
  const extents = ExtentList.fromRows(task.extents);
  const reader = new PackReader(paths);
  try {
    if (task.tarSplit === undefined) {
      markCorrupt(paths, reader, extents);
      return { contents: [], chunks: [], tarRanges: new Float64Array(0) };
    }
    const found = await wrongContents(reader, extents, task.table);
    const tarSplit = await readTarSplit(new MetadataSource(task.blob), task.tarSplit);
    const tarRanges = wrongGaps(reader, extents, tarSplit, gapsOf(task.table));
    const blobDigest = digestBytes(task.blob.digest);
    markCorrupt(paths, reader, suspects(extents, task.table, found.contents, tarRanges), blobDigest);
    return { ...found, tarRanges };
  } finally {
    reader.close();
    if (task.tarSplit !== undefined) await releaseLargeGarbage(task.tarSplit.uncompressedBytes);
  }
}

/** Returns the extents of everything that is wrong. */
function suspects(
  extents: ExtentList,
  table: LayerTable,
  contents: readonly number[],
  tarRanges: Float64Array,
): ExtentList {
  const parts = new ExtentList();
  for (const row of contents) {
    const start = table.tarStart[row]!;
    parts.append(extents.slice(start, start + table.sizeBytes[row]!));
  }
  for (let i = 0; i < tarRanges.length; i += 2) parts.append(extents.slice(tarRanges[i]!, tarRanges[i + 1]!));
  return parts;
}

/** Hashes all contents, chunk by chunk if they have chunks. */
async function wrongContents(
  reader: PackReader,
  extents: ExtentList,
  table: LayerTable,
): Promise<WrongContents> {
  const contents: number[] = [];
  const chunks: number[] = [];
  let turnBytes = 0;
  let started = threadClock.start();
  for (const unit = new UnitCursor(table, 0, table.tarBytes); !unit.done; unit.advance()) {
    const { content, tarStart, tarEnd, digests, digestRow } = unit;
    const expected = digests.subarray(digestRow * DIGEST_BYTES, (digestRow + 1) * DIGEST_BYTES);
    if (!hasDigest(reader, extents.slice(tarStart, tarEnd), expected)) {
      if (contents.at(-1) !== content) contents.push(content);
      if (digests === table.chunkDigests) chunks.push(digestRow);
    }
    turnBytes += tarEnd - tarStart;
    if (turnBytes < BYTES_A_TURN) continue;
    threadClock.end('hash', started, turnBytes);
    turnBytes = 0;
    await nextTurn();
    started = threadClock.start();
  }
  threadClock.end('hash', started, turnBytes);
  return { contents, chunks };
}

/** Returns the tar ranges without contents, as pairs [start, end), none empty. */
function gapsOf(table: LayerTable): Float64Array {
  const pairs: number[] = [];
  let at = 0;
  for (let row = 0; row < table.count; row++) {
    if (table.tarStart[row]! > at) pairs.push(at, table.tarStart[row]!);
    at = table.tarStart[row]! + table.sizeBytes[row]!;
  }
  if (table.tarBytes > at) pairs.push(at, table.tarBytes);
  return Float64Array.from(pairs);
}

/** Returns the gaps whose bytes differ from tar-split. One pass over tar-split. */
function wrongGaps(
  reader: PackReader,
  extents: ExtentList,
  tarSplit: Buffer,
  gaps: Float64Array,
): Float64Array {
  const wrong: number[] = [];
  let gap = 0;
  let at = gaps[0] ?? 0;
  copyTarBytes(tarSplit, gaps, (bytes) => {
    for (let done = 0; done < bytes.length; ) {
      const end = gaps[gap + 1]!;
      const length = Math.min(end - at, bytes.length - done);
      const expected = bytes.subarray(done, done + length);
      const known = wrong.at(-2) === gaps[gap];
      if (!known && !hasBytes(reader, extents.slice(at, at + length), expected)) wrong.push(gaps[gap]!, end);
      done += length;
      at += length;
      if (at === end) {
        gap += 2;
        at = gaps[gap] ?? 0;
      }
    }
  });
  return Float64Array.from(wrong);
}

function hasBytes(reader: PackReader, part: ExtentList, expected: Buffer): boolean {
  let at = 0;
  try {
    for (const block of reader.blocks(part)) {
      if (!block.equals(expected.subarray(at, at + block.length))) return false;
      at += block.length;
    }
  } catch (error) {
    return ifMissing(error, false);
  }
  return true;
}
