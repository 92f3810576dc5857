import { DIGEST_BYTES } from '../src/format/digest.js';
import type { LayerTable } from '../src/format/layer-table.js';
import { copyTarBytes } from '../src/format/tar-split.js';
import type { FindDamageResult, FindDamageTask } from '../src/pool/messages.js';
import { ExtentList } from '../src/store/extents.js';
import { hasDigest } from '../src/store/has-digest.js';
import { markRotten } from '../src/store/mark-rotten.js';
import { NotInPack, PackReader } from '../src/store/pack-reader.js';
import { paths } from './context.js';
import { extentsOf } from './extents.js';
import { releaseLargeGarbage } from './garbage.js';
import { MetadataSource, readTarSplit } from './metadata-source.js';

/** Compares a whole layer on disk with its metadata: contents by digest, everything else with tar-split. */
export async function findDamage(task: FindDamageTask): Promise<FindDamageResult> {
  const extents = extentsOf(task.extents);
  const reader = new PackReader(paths);
  try {
    if (task.tarSplit === undefined) {
      markRotten(paths, reader, extents);
      return { contents: [], raw: new Float64Array(0) };
    }
    const tarSplit = await readTarSplit(new MetadataSource(task.blob), task.tarSplit);
    const contents = falseContents(reader, extents, task.table);
    const raw = falseGaps(reader, extents, tarSplit, gapsOf(task.table));
    markRotten(paths, reader, suspects(extents, task.table, contents, raw));
    return { contents, raw };
  } finally {
    reader.close();
    if (task.tarSplit !== undefined) await releaseLargeGarbage(task.tarSplit.rawBytes);
  }
}

/** The extents of everything that is false. */
function suspects(
  extents: ExtentList,
  table: LayerTable,
  contents: readonly number[],
  raw: Float64Array,
): ExtentList {
  const parts = new ExtentList();
  for (const row of contents) {
    const start = table.tarStart[row]!;
    parts.append(extents.slice(start, start + table.sizeBytes[row]!));
  }
  for (let i = 0; i < raw.length; i += 2) parts.append(extents.slice(raw[i]!, raw[i + 1]!));
  return parts;
}

function falseContents(reader: PackReader, extents: ExtentList, table: LayerTable): number[] {
  const wrong: number[] = [];
  for (let row = 0; row < table.count; row++) {
    const start = table.tarStart[row]!;
    const part = extents.slice(start, start + table.sizeBytes[row]!);
    const expected = table.digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES);
    if (!hasDigest(reader, part, expected)) wrong.push(row);
  }
  return wrong;
}

/** The tar ranges that are no content, as pairs [start, end), none empty. */
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

/** Which of the gaps do not have tar-split's bytes; one pass over tar-split. */
function falseGaps(
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
    if (error instanceof NotInPack) return false;
    throw error;
  }
  return true;
}
