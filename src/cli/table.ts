import { printable } from './printable.js';

/** Rows as lines of text, their columns below one another; the last is not filled up. Hostile text is made harmless. */
export function tableText(rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map(printable));
  const widths = (cells[0] ?? []).map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)));
  return cells
    .map(
      (row) =>
        `${row.map((cell, at) => (at + 1 < row.length ? cell.padEnd(widths[at]!) : cell)).join('  ')}\n`,
    )
    .join('');
}
