import type { LayerTable } from './layer-table.js';
import { lastAtMost } from './search.js';
import { Column } from './tar-contents.js';

/**
 * The places of a layer without tar-split where a range may begin or end, in order, and no two at one blob offset: where
 * a content or a gap begins, where a frame begins that several contents share, where a chunk of a content with chunk rows
 * begins, and the end. Between two edges lies a gap, a content or chunk, or (layout `within`) one of them with its gap.
 */
export interface LayerEdges {
  /** The last edge is the end, and begins nothing. */
  readonly count: number;
  readonly blobAt: Float64Array;
  /** As allotted. */
  readonly tarAt: Float64Array;
  /** The content that begins here, or whose chunk does; -1 where a gap does, or nothing. */
  readonly row: Float64Array;
  /** The chunk that begins here and is not its content's first; -1 otherwise. */
  readonly chunk: Float64Array;
}

type Columns = { readonly [name in 'blobAt' | 'tarAt' | 'row' | 'chunk']: Column };

/** The edges of the blob range [blobStart, blobEnd] of a layer; both should be edges themselves. */
export function layerEdges(table: LayerTable, blobStart = 0, blobEnd = table.dataEnd): LayerEdges {
  const columns = { blobAt: new Column(), tarAt: new Column(), row: new Column(), chunk: new Column() };
  if (blobStart === 0) push(columns, 0, 0, -1, -1);
  for (let row = firstRowBehind(table, blobStart); row < table.count; row++) {
    if (table.blobStart[row]! > blobEnd) break;
    pushContent(columns, table, row, blobStart, blobEnd);
  }
  if (blobEnd === table.dataEnd) push(columns, blobEnd, table.tarBytes, -1, -1);
  return within(columns, blobStart, blobEnd);
}

/** The edges of one content; of its chunks, only those in [from, to]: it can have more than a span should pay for. */
function pushContent(columns: Columns, table: LayerTable, row: number, from: number, to: number): void {
  const { blobStart, blobEnd, tarStart, sizeBytes, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  // Contents of one frame: only the first begins at an edge.
  if (row === 0 || blobStart[row]! > blobStart[row - 1]!)
    push(columns, blobStart[row]!, tarStart[row]!, row, -1);
  const end = chunkFirst[row + 1]!;
  const behind = lastAtMost(chunkBlobStart, chunkBlobStart.length, from - 1) + 1;
  for (let chunk = Math.max(chunkFirst[row]! + 1, behind); chunk < end; chunk++) {
    const at = chunkBlobStart[chunk]!;
    if (at > to) break;
    if (at > chunkBlobStart[chunk - 1]! && at < blobEnd[row]!)
      push(columns, at, chunkTarStart[chunk]!, row, chunk);
  }
  if (table.layout === 'separate-frames')
    push(columns, blobEnd[row]!, tarStart[row]! + sizeBytes[row]!, -1, -1);
}

/** Appends an edge; one at the same blob offset as the last takes its place: there was nothing between them. */
function push(columns: Columns, blobAt: number, tarAt: number, row: number, chunk: number): void {
  const { length, values } = columns.blobAt;
  if (length > 0 && values[length - 1] === blobAt)
    for (const column of Object.values(columns)) column.length--;
  columns.blobAt.push(blobAt);
  columns.tarAt.push(tarAt);
  columns.row.push(row);
  columns.chunk.push(chunk);
}

/** The first content with bytes behind `blobStart`, or that ends there: the gap behind it begins there. */
function firstRowBehind({ blobEnd, count }: LayerTable, blobStart: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (blobEnd[middle]! < blobStart) low = middle + 1;
    else high = middle;
  }
  return low;
}

function within(columns: Columns, blobStart: number, blobEnd: number): LayerEdges {
  const { values, length } = columns.blobAt;
  let first = 0;
  while (first < length && values[first]! < blobStart) first++;
  let end = length;
  while (end > first && values[end - 1]! > blobEnd) end--;
  const part = ({ values }: Column) => values.slice(first, end);
  const { blobAt, tarAt, row, chunk } = columns;
  return { count: end - first, blobAt: part(blobAt), tarAt: part(tarAt), row: part(row), chunk: part(chunk) };
}

/**
 * The first place at or behind `blobAt` where a range may be cut in two that is within the data of a layer; undefined when there is
 * none before its end. The tar offset is that of the table.
 */
export function findEdge(
  table: LayerTable,
  { blobStart, blobEnd }: { readonly blobStart: number; readonly blobEnd: number },
  blobAt: number,
): { readonly blobAt: number; readonly tarAt: number } | undefined {
  const from = Math.max(blobAt, blobStart + 1);
  const edge =
    table.layout === 'tar-split'
      ? firstUnitFrom(table, from)
      : firstEdgeFrom(table, blobStart, blobEnd, from);
  return edge !== undefined && edge.blobAt < blobEnd ? edge : undefined;
}

function firstEdgeFrom(table: LayerTable, blobStart: number, blobEnd: number, blobAt: number) {
  const edges = layerEdges(table, blobStart, blobEnd);
  const edge = edges.blobAt.findIndex((at) => at >= blobAt);
  return edge < 0 ? undefined : { blobAt: edges.blobAt[edge]!, tarAt: edges.tarAt[edge]! };
}

/** The first content, or chunk of one, that begins at or behind `blobAt`. */
function firstUnitFrom(table: LayerTable, blobAt: number) {
  const { count, blobStart, tarStart, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  const before = lastAtMost(blobStart, count, blobAt - 1);
  const end = before < 0 ? 0 : chunkFirst[before + 1]!;
  for (let chunk = before < 0 ? 0 : chunkFirst[before]! + 1; chunk < end; chunk++) {
    if (chunkBlobStart[chunk]! >= blobAt && chunkBlobStart[chunk]! > chunkBlobStart[chunk - 1]!)
      return { blobAt: chunkBlobStart[chunk]!, tarAt: chunkTarStart[chunk]! };
  }
  const row = before + 1;
  return row < count ? { blobAt: blobStart[row]!, tarAt: tarStart[row]! } : undefined;
}
