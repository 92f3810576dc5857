import { type LayerTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { lastAtMost } from '../format/search.js';
import { findFirstOccurrences } from '../plan/duplicates.js';
import type { FindDamageResult } from '../pool/messages.js';

/** A false content, or a false chunk of one. */
interface Unit {
  readonly content: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
}

/** Neighbouring false units, which one request fetches. */
export interface DamagedRun {
  readonly blobStart: number;
  blobEnd: number;
  readonly tarStart: number;
  tarEnd: number;
  readonly firstContent: number;
  lastContent: number;
  /** Whether all of them came in this pull; else none of them did. */
  readonly isFresh: boolean;
}

/** A content that need not be fetched: the same content, which begins at `origin` of the tar, is in row `run` of the runs. */
export interface DamagedCopy {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly run: number;
  readonly origin: number;
}

export interface DamagedParts {
  /** In tar order. */
  readonly runs: readonly DamagedRun[];
  readonly copies: readonly DamagedCopy[];
}

/**
 * What is to be fetched of a layer with these false contents, in requests that are no larger than spans unless a content is.
 * `isFresh`: whether a range of the tar came in this pull.
 */
export function damagedParts(
  table: LayerTable,
  damage: Pick<FindDamageResult, 'contents' | 'chunks'>,
  isFresh: (tarStart: number, tarEnd: number) => boolean,
): DamagedParts {
  const joined: DamagedRun[] = [];
  for (const unit of unitsOf(table, damage)) {
    const fresh = isFresh(unit.tarStart, unit.tarEnd);
    const run = joined.at(-1);
    if (run !== undefined && run.isFresh === fresh && mayJoin(table, run, unit)) {
      run.blobEnd = unit.blobEnd;
      run.tarEnd = unit.tarEnd;
      run.lastContent = unit.content;
    } else {
      const { content, ...range } = unit;
      joined.push({ ...range, firstContent: content, lastContent: content, isFresh: fresh });
    }
  }
  return withoutDuplicates(table, joined);
}

function* unitsOf(
  table: LayerTable,
  damage: Pick<FindDamageResult, 'contents' | 'chunks'>,
): Generator<Unit, void, undefined> {
  const { blobStart, blobEnd, tarStart, sizeBytes, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  let next = 0;
  for (const content of damage.contents) {
    const whole = {
      content,
      blobStart: blobStart[content]!,
      blobEnd: blobEnd[content]!,
      tarStart: tarStart[content]!,
      tarEnd: tarStart[content]! + sizeBytes[content]!,
    };
    const chunks: Unit[] = [];
    for (; next < damage.chunks.length && damage.chunks[next]! < chunkFirst[content + 1]!; next++) {
      const chunk = damage.chunks[next]!;
      const isLast = chunk + 1 === chunkFirst[content + 1]!;
      chunks.push({
        content,
        blobStart: chunkBlobStart[chunk]!,
        blobEnd: isLast ? whole.blobEnd : chunkBlobStart[chunk + 1]!,
        tarStart: chunkTarStart[chunk]!,
        tarEnd: isLast ? whole.tarEnd : chunkTarStart[chunk + 1]!,
      });
    }
    // A chunk without bytes of its own in the blob cannot be asked for.
    if (chunks.length > 0 && chunks.every(({ blobStart, blobEnd }) => blobStart < blobEnd)) yield* chunks;
    else yield whole;
  }
}

/** Whether nothing but a gap lies between a run and a unit, and both together are no larger than a span. */
function mayJoin({ tarStart, sizeBytes }: LayerTable, run: DamagedRun, unit: Unit): boolean {
  const { content } = unit;
  const last = run.lastContent;
  const isNext =
    content === last
      ? unit.tarStart === run.tarEnd
      : content === last + 1 &&
        unit.tarStart === tarStart[content] &&
        run.tarEnd === tarStart[last]! + sizeBytes[last]!;
  return (
    isNext && unit.blobEnd - run.blobStart <= SPAN_BLOB_BYTES && unit.tarEnd - run.tarStart <= SPAN_TAR_BYTES
  );
}

/** Takes out each run that is one content which another run has, too: a layer can have it at thousands of places. */
function withoutDuplicates(table: LayerTable, joined: readonly DamagedRun[]): DamagedParts {
  const [firsts] = findFirstOccurrences([table]);
  const runs: DamagedRun[] = [];
  const copies: DamagedCopy[] = [];
  const starts: number[] = [];
  for (const run of joined) {
    const { tarStart, tarEnd, firstContent } = run;
    const isWhole = tarEnd - tarStart === table.sizeBytes[firstContent];
    const isFirst = firsts!.layer[firstContent]! < 0;
    const origin = isFirst ? -1 : table.tarStart[firsts!.row[firstContent]!]!;
    const row = isWhole && !isFirst ? lastAtMost(starts, starts.length, origin) : -1;
    if (row >= 0 && origin + tarEnd - tarStart <= runs[row]!.tarEnd) {
      copies.push({ tarStart, tarEnd, run: row, origin });
    } else {
      runs.push(run);
      starts.push(tarStart);
    }
  }
  return { runs, copies };
}
