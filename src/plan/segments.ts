import { lastAtMost } from '../format/search.js';
import { CELL, type Cells } from './cells.js';
import type { CellRange } from './cut.js';

/** Where the bytes of a segment come from. */
export const SEGMENT = {
  /** Decoded from one span; `source` is its row in the plan's spans, the segment is the whole of it. */
  span: 0,
  /** In a pack already; `source` is the pack, `sourceOffset` the offset in it. */
  held: 1,
  /** As at another place of this pull, always an earlier one and itself no copy; `source` is the layer, `sourceOffset` the tar offset. */
  copy: 2,
  /** tar-split has them; `source` is -1. */
  inline: 3,
} as const;

/** The segments that tile one layer's tar, in order (29 bytes each). Segment i is [tarStart[i], tarStart[i + 1]). */
export interface Segments {
  readonly count: number;
  readonly kind: Uint8Array;
  /** One more than `count`: the last is the length of the tar. */
  readonly tarStart: Float64Array;
  readonly source: Int32Array;
  readonly sourceOffset: Float64Array;
  /** Bytes of the tar it has: as many as its range says, or fewer where tar offsets are allotments; of a span, not known before. */
  readonly lengthBytes: Float64Array;
}

/** The row of the segment that has this tar offset, or -1 when none has. */
export function segmentAt(segments: Segments, tarOffset: number): number {
  const row = lastAtMost(segments.tarStart, segments.count + 1, tarOffset);
  return row < segments.count ? row : -1;
}

/**
 * Visits in tar order the segments that overlap [tarStart, tarEnd), each with the part of the tar that it has of
 * them. With the layer and range of a copy: what holds it.
 */
export function eachSegmentIn(
  segments: Segments,
  tarStart: number,
  tarEnd: number,
  visit: (row: number, partStart: number, partEnd: number) => void,
): void {
  let row = tarStart < tarEnd ? segmentAt(segments, tarStart) : -1;
  for (; row >= 0 && row < segments.count && segments.tarStart[row]! < tarEnd; row++) {
    const partStart = Math.max(tarStart, segments.tarStart[row]!);
    visit(row, partStart, Math.min(tarEnd, segments.tarStart[row + 1]!));
  }
}

/** The segments of one layer; `spans` are its own, in order, the first of them row `firstSpan` of the plan's. */
export function buildSegments(cells: Cells, spans: readonly CellRange[], firstSpan: number): Segments {
  const rows = {
    count: 0,
    kind: new Uint8Array(cells.count),
    tarStart: new Float64Array(cells.count + 1),
    source: new Int32Array(cells.count),
    sourceOffset: new Float64Array(cells.count),
    lengthBytes: new Float64Array(cells.count),
  };
  let span = 0;
  for (let cell = 0; cell < cells.count; ) {
    if (span < spans.length && spans[span]!.first === cell) {
      const range = spans[span]!;
      const tarEnd = cells.tarStart[range.end]!;
      push(rows, SEGMENT.span, firstSpan + span, 0, tarEnd, tarEnd - cells.tarStart[cell]!);
      span++;
      cell = range.end;
      continue;
    }
    const tarEnd = cells.tarStart[cell + 1]!;
    if (tarEnd > cells.tarStart[cell]!) pushCellSegment(rows, cells, cell, tarEnd);
    cell++;
  }
  return trimmed(rows);
}

type Rows = { -readonly [name in keyof Segments]: Segments[name] };

function pushCellSegment(rows: Rows, cells: Cells, cell: number, tarEnd: number): void {
  const state = cells.state[cell]!;
  const source = cells.source[cell]!;
  const offset = cells.sourceOffset[cell]!;
  const length = cells.lengthBytes[cell]!;
  if (state === CELL.gap || state === CELL.hole) pushJoined(rows, SEGMENT.inline, -1, 0, tarEnd, length);
  else pushJoined(rows, state === CELL.copy ? SEGMENT.copy : SEGMENT.held, source, offset, tarEnd, length);
}

/** Lengthens the last segment when this one goes on where it ends: chunks of one content, pieces of one pack. */
function pushJoined(
  rows: Rows,
  kind: number,
  source: number,
  offset: number,
  tarEnd: number,
  lengthBytes: number,
): void {
  const last = rows.count - 1;
  if (last >= 0 && rows.kind[last] === kind && rows.source[last] === source) {
    if (kind === SEGMENT.inline || rows.sourceOffset[last]! + rows.lengthBytes[last]! === offset) {
      rows.tarStart[last + 1] = tarEnd;
      rows.lengthBytes[last]! += lengthBytes;
      return;
    }
  }
  push(rows, kind, source, offset, tarEnd, lengthBytes);
}

function push(
  rows: Rows,
  kind: number,
  source: number,
  offset: number,
  tarEnd: number,
  lengthBytes: number,
): void {
  const row = rows.count;
  rows.kind[row] = kind;
  rows.source[row] = source;
  rows.sourceOffset[row] = offset;
  rows.lengthBytes[row] = lengthBytes;
  rows.tarStart[row + 1] = tarEnd;
  rows.count = row + 1;
}

/** A cold pull has few segments and room for many. */
function trimmed(rows: Rows): Segments {
  const { count } = rows;
  return {
    count,
    kind: rows.kind.slice(0, count),
    tarStart: rows.tarStart.slice(0, count + 1),
    source: rows.source.slice(0, count),
    sourceOffset: rows.sourceOffset.slice(0, count),
    lengthBytes: rows.lengthBytes.slice(0, count),
  };
}
