import { cutPoints, type LayerTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import type { Span } from './plan.js';

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
      if (isNext && mayJoin(before, unit))
        spans[spans.length - 1] = { ...before, blobEnd: unit.blobEnd, tarEnd: unit.tarEnd };
      else spans.push(unit);
      lastRow = row;
    }
  }
  return spans;
}

function mayJoin(before: SelectedSpan, { blobStart, blobEnd, tarEnd }: SelectedSpan): boolean {
  const isNear = blobStart - before.blobEnd <= MAX_GAP_BLOB_BYTES;
  return (
    isNear && blobEnd - before.blobStart <= SPAN_BLOB_BYTES && tarEnd - before.tarStart <= SPAN_TAR_BYTES
  );
}

/** Yields a content, or its chunks if it has any. */
function* unitsOf(table: LayerTable, row: number): Generator<SelectedSpan, void, undefined> {
  const contentEnd = { blobEnd: table.blobEnd[row]!, tarEnd: table.tarStart[row]! + table.sizeBytes[row]! };
  const first = table.chunkFirst[row]!;
  const end = table.chunkFirst[row + 1]!;
  if (first === end)
    yield { blobStart: table.blobStart[row]!, tarStart: table.tarStart[row]!, ...contentEnd };
  for (let chunk = first; chunk < end; chunk++) {
    const isLast = chunk + 1 === end;
    yield {
      blobStart: table.chunkBlobStart[chunk]!,
      tarStart: table.chunkTarStart[chunk]!,
      blobEnd: isLast ? contentEnd.blobEnd : table.chunkBlobStart[chunk + 1]!,
      tarEnd: isLast ? contentEnd.tarEnd : table.chunkTarStart[chunk + 1]!,
    };
  }
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
