import { formatCount } from '../api/figures.js';

/**
 * Characters that a terminal may obey instead of showing: controls, C1 included, and marks that
 * turn or join text (Unicode's Cc, Cf, Cs, Zl, Zp). The text of a message may come from a registry.
 */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** A text cut to `maxLength` characters, with the count of those left out. */
export function formatCut(text: string, maxLength: number): string {
  const restLength = text.length - maxLength;
  return restLength <= 0
    ? text
    : `${text.slice(0, maxLength)}… (${formatCount(restLength, 'character')} more)`;
}

/** A column of a table. */
export interface Column {
  readonly title: string;
  /** Cells are aligned at their right. */
  readonly numeric?: true;
}

/** Rows under headings, in columns as wide as their widest cell. Cells are made `printable`. */
export function formatTable(columns: readonly Column[], rows: ReadonlyArray<readonly string[]>): string {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => row.map(printable))];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => (line[i] ?? '').length)));
  const pad = (cell: string, i: number) =>
    columns[i]!.numeric ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!);
  return lines.map((line) => `${line.map(pad).join('  ').trimEnd()}\n`).join('');
}

/** The text on one line, with what a terminal may obey written as `\u{…}`. */
export function printable(text: string): string {
  return text.replace(HOSTILE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/**
 * A line of JSON that a terminal can show safely: JSON itself escapes the first 32 controls only.
 */
export function jsonLine(value: unknown): string {
  const escaped = JSON.stringify(value).replace(HOSTILE, (character) =>
    [...Array(character.length).keys()]
      .map((unit) => `\\u${character.charCodeAt(unit).toString(16).padStart(4, '0')}`)
      .join(''),
  );
  return `${escaped}\n`;
}
