import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { medianOf, spreadOf, statisticsOf } from '../src/measure/statistics.js';
import { formatFigure, limitsOf, ROWS, type RowDefinition, rowNumber } from './rows.js';

/** A wider spread than this of repeated runs makes their median doubtful. */
const DOUBTFUL_SPREAD = 0.2;

type Verdict = 'ok' | 'NOT MET' | 'info' | 'not measured';

interface Measurement {
  /** One figure a run. */
  readonly runs: readonly number[];
  /** Which of the runs counts. */
  readonly by?: 'median' | 'worst';
  readonly note?: string;
}

export interface Row extends RowDefinition {
  readonly figure: number | null;
  readonly verdict: Verdict;
  readonly runs: readonly number[];
  readonly note: string;
}

/** What a file of results holds. */
export interface Results {
  readonly options: { readonly files: number };
  readonly rows: readonly Row[];
  readonly warnings: readonly string[];
}

/** What has been measured so far, on the screen and in a file. */
export interface Report {
  record(id: string, measurement: Measurement): void;
  /** Says why a row has no figure. */
  skip(id: string, reason: string): void;
  warn(message: string): void;
  rows(): Row[];
  /** As text: a table of what was measured, what could not be, and the warnings. */
  text(): string;
}

/** A report on these rows that writes itself to `path` after every measurement; `about` says on what machine and with what options. */
export function createReport(
  path: string,
  about: Readonly<Record<string, unknown>>,
  definitions: readonly RowDefinition[] = ROWS,
): Report {
  const rows = new Map(definitions.map((row) => [row.id, unmeasured(row, '')]));
  const warnings: string[] = [];
  const save = () => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify({ ...about, rows: [...rows.values()], warnings }, null, 2)}\n`);
  };
  const warn = (message: string) => {
    warnings.push(message);
    save();
  };
  return {
    record(id, measurement) {
      const row = measured(rows.get(id)!, measurement);
      rows.set(id, row);
      const { by = 'median', runs } = measurement;
      const spread = spreadOf(statisticsOf(runs));
      if (by === 'median' && row.verdict !== 'info' && spread > DOUBTFUL_SPREAD) {
        warn(`row ${id} is doubtful: ${runs.length} runs lie ${(spread * 100).toFixed(0)} % apart`);
      }
      save();
    },
    skip(id, reason) {
      rows.set(id, unmeasured(rows.get(id)!, reason));
      save();
    },
    warn,
    rows: () => [...rows.values()],
    text: () => {
      const all = [...rows.values()];
      const skipped = all.filter(({ figure, note }) => figure === null && note !== '');
      return [
        table(all.filter(({ figure }) => figure !== null)),
        ...skipped.map(({ id, note }) => `row ${id} was not measured: ${note}`),
        ...warnings.map((warning) => `warning: ${warning}`),
      ].join('\n');
    },
  };
}

function unmeasured(row: RowDefinition, note: string): Row {
  return { ...row, figure: null, verdict: 'not measured', runs: [], note };
}

function measured(row: RowDefinition, { runs, by = 'median', note = '' }: Measurement): Row {
  const figure = by === 'median' ? medianOf(runs) : worst(row, runs);
  return { ...row, figure, verdict: verdict(row, figure), runs, note };
}

function worst({ atLeast }: RowDefinition, runs: readonly number[]): number {
  return atLeast === undefined ? Math.max(...runs) : Math.min(...runs);
}

function verdict({ atMost, atLeast }: RowDefinition, figure: number): Verdict {
  if (atMost === undefined && atLeast === undefined) return 'info';
  const met =
    figure <= (atMost ?? Number.POSITIVE_INFINITY) && figure >= (atLeast ?? Number.NEGATIVE_INFINITY);
  return met ? 'ok' : 'NOT MET';
}

function table(rows: readonly Row[]): string {
  const lines = [['row', 'what', 'figure', 'limit', '', 'runs', 'note'], ...rows.map(cells)];
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function cells(row: Row): string[] {
  const { id, name, unit, figure, runs, note } = row;
  return [
    String(rowNumber(id)) === id ? id : ` ${id}`,
    name,
    figure === null ? '-' : formatFigure(figure, unit),
    limitsOf(row),
    row.verdict,
    runs.length > 1 ? runs.map((run) => formatFigure(run, unit)).join(', ') : '',
    note,
  ];
}
