import { bytesOf, containingRun, ExtentList, type Runs } from './extents.js';
import { markBad, type PackRun, readBadRuns } from './pack-files.js';
import {
  digestOf,
  encodeContent,
  encodePiece,
  type IndexedPack,
  IndexScan,
  isContent,
  lengthOf,
  listIndexedPacks,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
  type RecordType,
} from './pack-index.js';
import { hasDigest, type PackReader } from './pack-reader.js';
import type { PackWriter } from './pack-writer.js';
import type { PackId, StorePaths } from './paths.js';

/** The runs of a pack to copy. */
export interface RunsToCopy {
  readonly pack: PackId;
  readonly runs: Runs;
}

/** The new offsets of the runs of a source, row by row. */
export type NewOffsets = Float64Array;

/**
 * Copies runs of packs into the writer's pack, with their bad runs and the index records of bytes
 * that lie within one run. Computes stated digests, since a piece that spans several runs is not
 * copied and its crc32 could not prove them later. Yields after each block, so that the caller can
 * do other work.
 * @returns the new offsets of the runs of each source
 * @throws MissingBytes, else PullError as `storageError`
 */
export function* copyRuns(
  paths: StorePaths,
  reader: PackReader,
  writer: PackWriter,
  sources: readonly RunsToCopy[],
): Generator<void, NewOffsets[], undefined> {
  const indexes = new Map(listIndexedPacks(paths).map((pack) => [pack.id, pack]));
  const scan = new IndexScan(paths);
  const copied: NewOffsets[] = [];
  for (const { pack, runs } of sources) {
    const region = writer.reserve(bytesOf(runs));
    const starts = new Float64Array(runs.length / 2);
    let at = region.start;
    for (let row = 0; row < starts.length; row++) {
      starts[row] = at;
      const run = ExtentList.of(pack, runs[2 * row]!, runs[2 * row + 1]! - runs[2 * row]!);
      for (const bytes of reader.blocks(run)) {
        writer.writeUnindexed(region, bytes, at);
        at += bytes.length;
        yield;
      }
    }
    const indexed = indexes.get(pack);
    const moved = (offset: number, lengthBytes: number): number => {
      const row = containingRun(runs, offset, offset + lengthBytes);
      return row < 0 ? -1 : starts[row]! + offset - runs[2 * row]!;
    };
    const { records, stated } =
      indexed === undefined ? { records: [], stated: [] } : movedRecords(scan, indexed, moved);
    for (const { offset, lengthBytes, record } of stated) {
      const run = ExtentList.of(pack, offset, lengthBytes);
      if (hasDigest(reader, run, digestOf(record, 0))) records.push(record);
      yield;
    }
    writer.writeRecords(region, Buffer.concat(records));
    const bad = movedBadRuns(readBadRuns(paths, pack), runs, starts);
    if (bad.length > 0) markBad(paths, region.pack, bad);
    copied.push(starts);
  }
  return copied;
}

/** A run with a stated digest, and its record for the new index if the digest is right. */
interface StatedContent extends PackRun {
  readonly record: Buffer;
}

/** Returns the index records of copied bytes. `moved` returns the new offset of a run, or -1. */
function movedRecords(
  scan: IndexScan,
  pack: IndexedPack,
  moved: (offset: number, lengthBytes: number) => number,
): { records: Buffer[]; stated: StatedContent[] } {
  const { block } = scan;
  const records: Buffer[] = [];
  const stated: StatedContent[] = [];
  const isKnown = (type: RecordType, at: number) =>
    type !== RECORD_TYPES.raw && moved(packOffsetOf(block, at), lengthOf(block, at)) >= 0;
  scan.read(pack, isKnown, (type, at) => {
    const record = Buffer.alloc(RECORD_BYTES);
    const offset = packOffsetOf(block, at);
    const lengthBytes = lengthOf(block, at);
    const packOffset = moved(offset, lengthBytes);
    if (isContent(type)) {
      encodeContent(record, 0, digestOf(block, at), 0, packOffset, lengthBytes);
    } else {
      encodePiece(record, 0, { ...pieceOf(block, at), packOffset });
    }
    if (type === RECORD_TYPES.stated) stated.push({ offset, lengthBytes, record });
    else records.push(record);
  });
  return { records, stated };
}

function movedBadRuns(bad: Runs, runs: Runs, starts: NewOffsets): PackRun[] {
  const moved: PackRun[] = [];
  for (let i = 0; i < bad.length; i += 2) {
    for (let row = 0; row < starts.length; row++) {
      const start = Math.max(bad[i]!, runs[2 * row]!);
      const end = Math.min(bad[i + 1]!, runs[2 * row + 1]!);
      if (start < end)
        moved.push({ offset: starts[row]! + start - runs[2 * row]!, lengthBytes: end - start });
    }
  }
  return moved;
}
