import { lastAtMost } from '../format/arrays.js';
import { type LayerTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { findFirstOccurrences } from '../plan/duplicates.js';
import { REQUEST_BYTES } from '../plan/spans.js';
import type { FindDamageResult } from '../pool/messages.js';

/** A false content, or a false chunk of one. */
interface Unit {
  readonly content: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
}

/** False units near each other, which one request fetches with what is between them. */
export interface DamagedRun {
  readonly blobStart: number;
  blobEnd: number;
  readonly tarStart: number;
  tarEnd: number;
  lastContent: number;
  /** Whether all false ones came in this pull; else none of them did. */
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
 * What is to be fetched of a layer with these false contents, in requests that are no larger than spans unless a content is. A
 * content that the layer has at several places is fetched for the first of them: it can be there thousands of times. What is
 * between false units is fetched over where it costs less than a request: who lies about every second file chooses how many there are.
 * `isFresh`: whether a range of the tar came in this pull.
 */
export function damagedParts(
  table: LayerTable,
  damage: Pick<FindDamageResult, 'contents' | 'chunks'>,
  isFresh: (tarStart: number, tarEnd: number) => boolean,
): DamagedParts {
  const [firsts] = findFirstOccurrences([table]);
  const isFetched = new Uint8Array(table.count);
  const runs: DamagedRun[] = [];
  const copies: Omit<DamagedCopy, 'run'>[] = [];
  for (const { content, ...range } of unitsOf(table, damage)) {
    const { tarStart, tarEnd } = range;
    const first = firsts!.layer[content]! < 0 ? content : firsts!.row[content]!;
    if (tarEnd - tarStart === table.sizeBytes[content]) {
      if (first !== content && isFetched[first] === 1) {
        copies.push({ tarStart, tarEnd, origin: table.tarStart[first]! });
        continue;
      }
      isFetched[content] = 1;
    }
    const run = runs.at(-1);
    const fresh = isFresh(tarStart, tarEnd);
    if (run !== undefined && run.isFresh === fresh && mayJoin(table, run, { content, ...range })) {
      run.blobEnd = range.blobEnd;
      run.tarEnd = tarEnd;
      run.lastContent = content;
    } else runs.push({ ...range, lastContent: content, isFresh: fresh });
  }
  const starts = runs.map(({ tarStart }) => tarStart);
  const runOf = (origin: number) => lastAtMost(starts, starts.length, origin);
  return { runs, copies: copies.map((copy) => ({ ...copy, run: runOf(copy.origin) })) };
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

/** Whether what lies between a run and a unit is fetched over, and both together are no larger than a span. */
function mayJoin(table: LayerTable, run: DamagedRun, unit: Unit): boolean {
  return (
    unit.blobStart - run.blobEnd <= REQUEST_BYTES &&
    unit.blobEnd - run.blobStart <= SPAN_BLOB_BYTES &&
    unit.tarEnd - run.tarStart <= SPAN_TAR_BYTES &&
    !hasHole(table, run.lastContent, unit.content)
  );
}

/** Whether between two contents the tar has bytes for which the blob has none: a range over them decodes to less. */
function hasHole({ blobStart, blobEnd, tarStart, sizeBytes }: LayerTable, from: number, to: number): boolean {
  for (let row = from; row < to; row++) {
    const isInTar = tarStart[row + 1]! > tarStart[row]! + sizeBytes[row]!;
    if (isInTar && blobStart[row + 1] === blobEnd[row]) return true;
  }
  return false;
}
