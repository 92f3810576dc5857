import { readFileSync, writeFileSync } from 'node:fs';
import type { Row } from './report.js';
import { formatFigure, limitsOf } from './rows.js';

/** Names of the tables that a document can have, each between two comments: `<!-- bench:rows -->` and `<!-- /bench:rows -->`. */
export type TableName = 'rows' | 'real';

/**
 * Puts a table in the place of the one that the document at `path` has under this name. `heading`: a sentence before it.
 * @throws Error when the document has no such place; errors of the file system
 */
export function writeMarkdownTable(
  path: string,
  name: TableName,
  heading: string,
  rows: readonly Row[],
): void {
  const text = readFileSync(path, 'utf8');
  const [begin, end] = [`<!-- bench:${name} -->\n`, `<!-- /bench:${name} -->`];
  const from = text.indexOf(begin);
  const to = text.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`${path} has no place for the table "${name}"`);
  const table = `${heading}\n\n${markdownTable(rows)}\n`;
  writeFileSync(path, text.slice(0, from + begin.length) + table + text.slice(to));
}

function markdownTable(rows: readonly Row[]): string {
  const shown = rows.filter(({ figure, note }) => figure !== null || note !== '');
  const lines = shown.map((row) => {
    const { id, name, unit, figure, runs, note, verdict } = row;
    const median = figure === null ? 'not measured' : formatFigure(figure, unit);
    const spread =
      runs.length > 1
        ? ` (${formatFigure(Math.min(...runs), unit)} to ${formatFigure(Math.max(...runs), unit)})`
        : '';
    const missed = verdict === 'NOT MET' ? ': **not met**' : '';
    return [id, name.trim(), median + spread, limitsOf(row) + missed, note];
  });
  const all = [
    ['row', 'what', 'median (least to most)', 'goal', ''],
    ['---', '---', '---', '---', '---'],
    ...lines,
  ];
  return all.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');
}
