import { DIGEST_BYTES } from '../format/digest.js';
import { markBad, type PackRun, readBadRuns } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { type IndexedPack, IndexScan, listIndexedPacks } from './index-files.js';
import {
  digestStart,
  encodeContent,
  encodePiece,
  isContent,
  lengthOf,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
  type RecordType,
} from './index-format.js';
import { hasDigest, type PackReader } from './pack-reader.js';
import type { PackWriter } from './pack-writer.js';
import type { PackId, StorePaths } from './paths.js';
import { bytesOf, containingRun, type Runs } from './runs.js';

/** The runs of a pack that go to another one. */
export interface CopySource {
  readonly pack: PackId;
  readonly runs: Runs;
}

/** Where the runs of a source begin now, row by row. */
export type NewOffsets = Float64Array;

/**
 * Copies runs of packs, one behind the other, into the writer's pack, and with them what their indexes know of bytes that lie
 * in one run whole. Digests that metadata stated are computed: pieces, by whose crc32 such a run could be told from rot later, are left
 * behind where they do not lie in one run. What is known to be false stays known to be false. Yields after each block, as the
 * caller has turns to take.
 * @returns where the runs of each source begin
 * @throws MissingBytes, else PullError as `storageError`
 */
export function* copyRuns(
  paths: StorePaths,
  reader: PackReader,
  writer: PackWriter,
  sources: readonly CopySource[],
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
      const run = new ExtentList();
      run.push(pack, runs[2 * row]!, runs[2 * row + 1]! - runs[2 * row]!);
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
      const run = new ExtentList();
      run.push(pack, offset, lengthBytes);
      if (hasDigest(reader, run, record.subarray(digestStart(0), digestStart(0) + DIGEST_BYTES)))
        records.push(record);
      yield;
    }
    writer.writeRecords(region, Buffer.concat(records));
    const bad = movedBadRuns(readBadRuns(paths, pack), runs, starts);
    if (bad.length > 0) markBad(paths, region.pack, bad);
    copied.push(starts);
  }
  return copied;
}

/** A content whose digest is stated, where it lies, and its record in the new index if the digest is right. */
interface StatedContent extends PackRun {
  readonly record: Buffer;
}

interface MovedRecords {
  readonly records: Buffer[];
  readonly stated: readonly StatedContent[];
}

/** What an index knows of bytes that are copied; `moved`: where a run begins now, or -1. */
function movedRecords(
  scan: IndexScan,
  pack: IndexedPack,
  moved: (offset: number, lengthBytes: number) => number,
): MovedRecords {
  const { block } = scan;
  const records: Buffer[] = [];
  const stated: StatedContent[] = [];
  const isKnown = (type: RecordType, place: number) =>
    type !== RECORD_TYPES.raw && moved(packOffsetOf(block, place), lengthOf(block, place)) >= 0;
  scan.read(pack, isKnown, (type, place) => {
    const record = Buffer.alloc(RECORD_BYTES);
    const offset = packOffsetOf(block, place);
    const lengthBytes = lengthOf(block, place);
    const packOffset = moved(offset, lengthBytes);
    if (isContent(type)) {
      encodeContent(record, 0, block.subarray(digestStart(place)), 0, packOffset, lengthBytes);
    } else {
      encodePiece(record, 0, { ...pieceOf(block, place), packOffset });
    }
    if (type === RECORD_TYPES.stated) stated.push({ offset, lengthBytes, record });
    else records.push(record);
  });
  return { records, stated };
}

/** What of the bad runs was copied, where it is now. */
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
