import { lastAtMost } from '../format/arrays.js';
import { cutPoints, type LayerTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { findFirstOccurrences, type Span } from './plan.js';
import { REQUEST_BYTES } from './spans.js';

/**
 * A gap of up to this many bytes between two contents is fetched too, instead of by a second
 * request: 3 ms at 20 MB/s.
 */
const MAX_GAP_BLOB_BYTES = 64 * 1024;

/** What one request fetches, and the range of the tar it decodes to. */
export type SelectedSpan = Omit<Span, 'layer'>;

/**
 * Returns the spans that fetch these contents of a layer, given as ascending rows of its table.
 * Adjacent contents are joined, large ones are fetched in chunks, and contents that share a frame
 * come with the whole frame.
 */
export function selectedSpans(table: LayerTable, rows: readonly number[]): SelectedSpan[] {
  const spans: SelectedSpan[] = [];
  let lastRow = -1;
  for (const row of rows) {
    for (const unit of table.layout === 'tar-split' ? unitsOf(table, row) : edgesOf(table, row)) {
      const before = spans.at(-1);
      // Included in the span of a content before it.
      if (table.layout !== 'tar-split' && before !== undefined && unit.blobStart < before.blobEnd) continue;
      const isNext = before !== undefined && (row === lastRow || row === lastRow + 1);
      if (isNext && mayJoin(before, unit, MAX_GAP_BLOB_BYTES))
        spans[spans.length - 1] = { ...before, blobEnd: unit.blobEnd, tarEnd: unit.tarEnd };
      else spans.push(unit);
      lastRow = row;
    }
  }
  return spans;
}

/** Whether the gap is small enough, and both together are no larger than a span. */
function mayJoin(
  before: SelectedSpan,
  { blobStart, blobEnd, tarEnd }: SelectedSpan,
  maxGapBytes: number,
): boolean {
  return (
    blobStart - before.blobEnd <= maxGapBytes &&
    blobEnd - before.blobStart <= SPAN_BLOB_BYTES &&
    tarEnd - before.tarStart <= SPAN_TAR_BYTES
  );
}

/** Yields a content, or its chunks if it has any. */
function* unitsOf(table: LayerTable, row: number): Generator<SelectedSpan, void, undefined> {
  const first = table.chunkFirst[row]!;
  const end = table.chunkFirst[row + 1]!;
  if (first === end) yield contentSpan(table, row);
  for (let chunk = first; chunk < end; chunk++) yield chunkSpan(table, row, chunk);
}

function contentSpan({ blobStart, blobEnd, tarStart, sizeBytes }: LayerTable, row: number): SelectedSpan {
  return {
    blobStart: blobStart[row]!,
    blobEnd: blobEnd[row]!,
    tarStart: tarStart[row]!,
    tarEnd: tarStart[row]! + sizeBytes[row]!,
  };
}

function chunkSpan(table: LayerTable, row: number, chunk: number): SelectedSpan {
  const { blobEnd, tarEnd } = contentSpan(table, row);
  const isLast = chunk + 1 === table.chunkFirst[row + 1]!;
  return {
    blobStart: table.chunkBlobStart[chunk]!,
    blobEnd: isLast ? blobEnd : table.chunkBlobStart[chunk + 1]!,
    tarStart: table.chunkTarStart[chunk]!,
    tarEnd: isLast ? tarEnd : table.chunkTarStart[chunk + 1]!,
  };
}

/**
 * Yields the ranges between cut points that have bytes of a content of a layer without tar-split;
 * tar offsets are allotments.
 */
function* edgesOf(table: LayerTable, row: number): Generator<SelectedSpan, void, undefined> {
  const { count, blobAt, tarAt } = cutPoints(table, table.blobStart[row]!, table.blobEnd[row]!);
  const contentEnd = table.tarStart[row]! + table.sizeBytes[row]!;
  for (let edge = 0; edge + 1 < count; edge++) {
    const [tarStart, tarEnd] = [tarAt[edge]!, tarAt[edge + 1]!];
    if (tarEnd <= table.tarStart[row]! || tarStart >= contentEnd) continue;
    yield { blobStart: blobAt[edge]!, blobEnd: blobAt[edge + 1]!, tarStart, tarEnd };
  }
}

/** Returns the ranges of the tar between contents as pairs [start, end): what tar-split has. */
export function gapsOf({ count, tarStart, sizeBytes, tarBytes }: LayerTable): Float64Array {
  const gaps: number[] = [];
  let at = 0;
  for (let row = 0; row <= count; row++) {
    const end = row < count ? tarStart[row]! : tarBytes;
    if (end > at) gaps.push(at, end);
    at = row < count ? end + sizeBytes[row]! : at;
  }
  return Float64Array.from(gaps);
}

/** A wrong content, or a wrong chunk of one. */
interface DamagedUnit extends SelectedSpan {
  readonly content: number;
}

/** Wrong units near each other, which one request fetches with what is between them. */
export interface DamagedRun extends SelectedSpan {
  readonly lastContent: number;
  /** Whether this pull received all of the wrong units; otherwise it received none of them. */
  readonly isFresh: boolean;
}

/**
 * A content that need not be fetched: row `run` of the runs has the same one, at tar offset
 * `origin`.
 */
export interface DamagedCopy {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly run: number;
  readonly origin: number;
}

/** Ascending rows of the table, of contents and of chunks within them. */
interface Damage {
  readonly contents: ArrayLike<number> & Iterable<number>;
  readonly chunks: ArrayLike<number>;
}

interface DamagedParts {
  /** In tar order. */
  readonly runs: readonly DamagedRun[];
  readonly copies: readonly DamagedCopy[];
}

/**
 * What to fetch of a layer with these wrong contents, in requests no larger than spans unless a
 * content is. A content that the layer has several times, perhaps thousands, is fetched once. Gaps
 * between wrong units are fetched where they cost less than a request: metadata that is wrong in
 * every second file would otherwise decide how many requests there are. `isFresh`: whether this
 * pull received a range of the tar.
 */
export function damagedParts(
  table: LayerTable,
  damage: Damage,
  isFresh: (tarStart: number, tarEnd: number) => boolean,
): DamagedParts {
  const [firsts] = findFirstOccurrences([table]);
  const isFetched = new Uint8Array(table.count);
  const runs: DamagedRun[] = [];
  const copies: Omit<DamagedCopy, 'run'>[] = [];
  for (const { content, ...range } of damagedUnits(table, damage)) {
    const { blobEnd, tarStart, tarEnd } = range;
    const first = firsts!.layer[content]! < 0 ? content : firsts!.row[content]!;
    if (tarEnd - tarStart === table.sizeBytes[content]) {
      if (first !== content && isFetched[first] === 1) {
        copies.push({ tarStart, tarEnd, origin: table.tarStart[first]! });
        continue;
      }
      isFetched[content] = 1;
    }
    const run = runs.at(-1);
    const ofThisPull = isFresh(tarStart, tarEnd);
    const joins =
      run?.isFresh === ofThisPull &&
      mayJoin(run, range, REQUEST_BYTES) &&
      !hasHole(table, run.lastContent, content);
    if (joins) runs[runs.length - 1] = { ...run, blobEnd, tarEnd, lastContent: content };
    else runs.push({ ...range, lastContent: content, isFresh: ofThisPull });
  }
  const starts = runs.map(({ tarStart }) => tarStart);
  const runOf = (origin: number) => lastAtMost(starts, starts.length, origin);
  return { runs, copies: copies.map((copy) => ({ ...copy, run: runOf(copy.origin) })) };
}

/** Yields each wrong content, or its wrong chunks. */
function* damagedUnits(table: LayerTable, damage: Damage): Generator<DamagedUnit, void, undefined> {
  let next = 0;
  for (const content of damage.contents) {
    const chunks: DamagedUnit[] = [];
    for (; next < damage.chunks.length && damage.chunks[next]! < table.chunkFirst[content + 1]!; next++) {
      chunks.push({ content, ...chunkSpan(table, content, damage.chunks[next]!) });
    }
    // A chunk without bytes in the blob cannot be requested.
    if (chunks.length > 0 && chunks.every(({ blobStart, blobEnd }) => blobStart < blobEnd)) yield* chunks;
    else yield { content, ...contentSpan(table, content) };
  }
}

/**
 * Whether the tar has bytes between two contents that the blob lacks: a range over them decodes to
 * less.
 */
function hasHole({ blobStart, blobEnd, tarStart, sizeBytes }: LayerTable, from: number, to: number): boolean {
  for (let row = from; row < to; row++) {
    const isInTar = tarStart[row + 1]! > tarStart[row]! + sizeBytes[row]!;
    if (isInTar && blobStart[row + 1] === blobEnd[row]) return true;
  }
  return false;
}
