import { lastAtMost } from '../format/search.js';
import { allocateCells, CELL, type Cells, pushCell } from './cells.js';
import type { ResumedPiece } from './want.js';

/** The cells with the usable resumed pieces laid over them; cells that a piece cuts keep what is left of them. */
export function layResumed(base: Cells, resumed: readonly ResumedPiece[]): Cells {
  const pieces = usablePieces(base, resumed);
  if (pieces.length === 0) return base;
  // A piece adds itself and may cut a cell into two.
  const cells = allocateCells(base.count + pieces.length * 2);
  let next = 0;
  for (let row = 0; row < base.count; row++) {
    const blobEnd = base.blobStart[row + 1]!;
    let covered = false;
    while (!covered && next < pieces.length && pieces[next]!.blobStart < blobEnd) {
      const piece = pieces[next]!;
      if (piece.blobStart >= base.blobStart[row]!) {
        pushPart(cells, base, row, piece.blobStart, piece.tarStart);
        const tarEnd = piece.tarStart + piece.lengthBytes;
        pushCell(cells, piece.blobEnd, tarEnd, CELL.resumed, piece.pack, piece.packOffset);
      }
      covered = piece.blobEnd >= blobEnd;
      if (piece.blobEnd <= blobEnd) next++;
    }
    if (!covered) pushPart(cells, base, row, blobEnd, base.tarStart[row + 1]!);
  }
  return cells;
}

/** Appends what lies between the last cell and these ends as a part of cell `row`. */
function pushPart(cells: Cells, base: Cells, row: number, blobEnd: number, tarEnd: number): void {
  const tarStart = cells.tarStart[cells.count]!;
  // Frames that decode to nothing are left of a content whose last bytes came with the piece: no reason to fetch.
  const state = tarEnd === tarStart ? CELL.gap : base.state[row]!;
  const offset = base.sourceOffset[row]! + (tarStart - base.tarStart[row]!);
  pushCell(cells, blobEnd, tarEnd, state, base.source[row]!, offset);
}

/** The pieces that agree with the table and with those before them. */
function usablePieces(base: Cells, resumed: readonly ResumedPiece[]): ResumedPiece[] {
  const usable: ResumedPiece[] = [];
  const dataEnd = base.blobStart[base.count]!;
  let blobAt = 0;
  let tarAt = 0;
  for (const piece of resumed) {
    const { blobStart, blobEnd, tarStart, lengthBytes } = piece;
    const tarEnd = tarStart + lengthBytes;
    if (![blobStart, blobEnd, tarStart, lengthBytes, tarEnd].every(Number.isSafeInteger)) continue;
    if (blobStart < blobAt || blobEnd <= blobStart || blobEnd > dataEnd) continue;
    if (tarStart < tarAt || lengthBytes < 0) continue;
    const inside = startAgrees(base, blobStart, tarStart);
    if (inside === undefined || !endAgrees(base, blobEnd, tarEnd)) continue;
    // Inside a cell the table cannot tell the tar position, but two pieces that touch can.
    if (inside && blobStart === blobAt && tarStart !== tarAt) continue;
    usable.push(piece);
    blobAt = blobEnd;
    tarAt = tarEnd;
  }
  return usable;
}

/** Whether a piece may begin here: true inside a cell, false at the start of one, undefined when it contradicts. */
function startAgrees(base: Cells, blobStart: number, tarStart: number): boolean | undefined {
  const row = lastAtMost(base.blobStart, base.count, blobStart);
  if (blobStart === base.blobStart[row]) return tarStart === base.tarStart[row] ? false : undefined;
  return withinTar(base, row, tarStart) ? true : undefined;
}

function endAgrees(base: Cells, blobEnd: number, tarEnd: number): boolean {
  // The cell of the last byte: where a hole follows, the piece ends before the hole.
  const row = lastAtMost(base.blobStart, base.count, blobEnd - 1);
  if (blobEnd === base.blobStart[row + 1]) return tarEnd === base.tarStart[row + 1];
  return withinTar(base, row, tarEnd);
}

function withinTar(base: Cells, row: number, tarOffset: number): boolean {
  return base.tarStart[row]! <= tarOffset && tarOffset <= base.tarStart[row + 1]!;
}
