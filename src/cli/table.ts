import { printable } from './printable.js';

/** One column of a table for people: its heading, and whether its cells are numbers, which end at the same place. */
export interface Column {
  readonly title: string;
  readonly numeric?: true;
}

/** Rows of text under headings, in columns as wide as their widest cell; no line ends in blanks. Hostile text is made harmless. */
export function formatTable(columns: readonly Column[], rows: ReadonlyArray<readonly string[]>): string {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => row.map(printable))];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => (line[i] ?? '').length)));
  const pad = (cell: string, i: number) =>
    columns[i]!.numeric ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!);
  return lines.map((line) => `${line.map(pad).join('  ').trimEnd()}\n`).join('');
}
