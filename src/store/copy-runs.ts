import { type BadRuns, markBad, type PackRun, readBadRuns } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { IndexScan, listIndexedPacks } from './index-files.js';
import {
  digestStart,
  encodeContent,
  encodePiece,
  lengthOf,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
} from './index-format.js';
import type { PackReader } from './pack-reader.js';
import type { PackWriter } from './pack-writer.js';
import type { PackId, StorePaths } from './paths.js';
import { bytesOf, type Runs, runAround } from './runs.js';

/** The runs of a pack that go to another one. */
export interface CopySource {
  readonly pack: PackId;
  readonly runs: Runs;
}

/** Where the runs of a source begin now, row by row. */
export type CopiedTo = Float64Array;

/**
 * Copies runs of packs, one behind the other, into the writer's pack, and with them what their indexes know of bytes that lie
 * in one run whole. What is known to be false stays known to be false. Yields after each block, as the caller has turns
 * to take.
 * @returns where the runs of each source begin
 * @throws NotInPack, else PullError as `storageError`
 */
export function* copyRuns(
  paths: StorePaths,
  reader: PackReader,
  writer: PackWriter,
  sources: readonly CopySource[],
): Generator<void, CopiedTo[], undefined> {
  const indexes = new Map(listIndexedPacks(paths).map((pack) => [pack.id, pack]));
  const scan = new IndexScan(paths);
  const { block } = scan;
  const copied: CopiedTo[] = [];
  for (const { pack, runs } of sources) {
    const region = writer.reserve(bytesOf(runs));
    const starts = new Float64Array(runs.length / 2);
    let at = region.start;
    for (let row = 0; row < starts.length; row++) {
      starts[row] = at;
      const run = new ExtentList();
      run.push(pack, runs[2 * row]!, runs[2 * row + 1]! - runs[2 * row]!);
      for (const bytes of reader.blocks(run)) {
        writer.writePlain(region, bytes, at);
        at += bytes.length;
        yield;
      }
    }
    const indexed = indexes.get(pack);
    const records: Buffer[] = [];
    const moved = (offset: number, lengthBytes: number): number => {
      const row = runAround(runs, offset, offset + lengthBytes);
      return row < 0 ? -1 : starts[row]! + offset - runs[2 * row]!;
    };
    const isKnown = (type: number, place: number) =>
      type !== RECORD_TYPES.raw && moved(packOffsetOf(block, place), lengthOf(block, place)) >= 0;
    if (indexed !== undefined) {
      scan.read(indexed, isKnown, (type, place) => {
        const record = Buffer.alloc(RECORD_BYTES);
        const lengthBytes = lengthOf(block, place);
        const packOffset = moved(packOffsetOf(block, place), lengthBytes);
        if (type === RECORD_TYPES.content) {
          encodeContent(record, 0, block.subarray(digestStart(place)), 0, packOffset, lengthBytes);
        } else {
          encodePiece(record, 0, { ...pieceOf(block, place), packOffset });
        }
        records.push(record);
      });
    }
    writer.writeRecords(region, Buffer.concat(records));
    const bad = movedBadRuns(readBadRuns(paths, pack), runs, starts);
    if (bad.length > 0) markBad(paths, region.pack, bad);
    copied.push(starts);
  }
  return copied;
}

/** What of the bad runs was copied, where it is now. */
function movedBadRuns(bad: BadRuns, runs: Runs, starts: CopiedTo): PackRun[] {
  const moved: PackRun[] = [];
  for (let i = 0; i < bad.start.length; i++) {
    for (let row = 0; row < starts.length; row++) {
      const start = Math.max(bad.start[i]!, runs[2 * row]!);
      const end = Math.min(bad.end[i]!, runs[2 * row + 1]!);
      if (start < end)
        moved.push({ offset: starts[row]! + start - runs[2 * row]!, lengthBytes: end - start });
    }
  }
  return moved;
}
