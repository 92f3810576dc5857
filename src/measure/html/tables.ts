import { formatBytes } from '../../format/figures.js';
import type { DoubtNotes } from '../doubt-notes.js';
import { secondsDigits } from '../figures.js';
import type { Report, Statistics } from '../report.js';
import type { LineChart } from './line-chart.js';
import { Html, html } from './markup.js';

/** A number as it is shown; `value` is the exact one. */
interface Figure {
  readonly value: number;
  readonly text: string;
}

export interface Table {
  readonly columns: readonly string[];
  /** The first cell is the heading of its row. */
  readonly rows: ReadonlyArray<readonly (string | Figure | Html)[]>;
}

/** A drawing with its figures as a table, which opens by mouse or keyboard. */
export function figure(id: string, title: string, drawing: Html, table: Table): Html {
  return html`<section id="${id}-section"><h2>${title}</h2>
<figure>${drawing}</figure>
<details><summary>Figures as a table</summary>${tableHtml(title, table)}</details></section>
`;
}

/** The place where the page's script draws a chart. */
export function lineFigure(chart: LineChart): Html {
  const { id, title, xTitle, yTitle, x, series } = chart;
  const columns = series.flatMap(({ label, spread }) => [
    `${label}, ${yTitle}`,
    ...(spread === null ? [] : [`${label}, lowest`, `${label}, highest`]),
  ]);
  const cells = (row: number) =>
    series
      .flatMap(({ values, spread }) => [
        values[row],
        ...(spread === null ? [] : [spread.low[row], spread.high[row]]),
      ])
      .map((value) => (value == null ? '' : { value, text: secondsDigits(value) }));
  const table: Table = {
    columns: [xTitle, ...columns],
    rows: x.map((at, row) => [String(Number(at.toFixed(3))), ...cells(row)]),
  };
  const drawing = html`<div class="chart" id="${id}" role="group" tabindex="0" aria-label="${title}: a chart; the arrow keys move through its values, and the table below has all of them"></div>`;
  return figure(id, title, drawing, table);
}

/** Every measurement, a row each, with the letters of its doubts. */
export function measurementsTable({ measurements }: Report, notes: DoubtNotes): Html {
  const seconds = (value: number): Figure => ({ value, text: secondsDigits(value) });
  const optional = (statistics: Statistics | null, text: (value: number) => string) =>
    statistics === null ? '' : { value: statistics.median, text: text(statistics.median) };
  const rows = measurements.map(
    ({ name, wallSeconds, bytesPerSecond, bytes, cpuSeconds, peakMemoryBytes, runs, doubts }) => [
      html`${name}${marksOf(doubts, notes)}`,
      seconds(wallSeconds.median),
      seconds(wallSeconds.mean),
      seconds(wallSeconds.standardDeviation),
      seconds(wallSeconds.min),
      seconds(wallSeconds.max),
      { value: bytesPerSecond.median, text: secondsDigits(bytesPerSecond.median / 1e6) },
      { value: bytes, text: formatBytes(bytes) },
      optional(cpuSeconds, secondsDigits),
      optional(peakMemoryBytes, formatBytes),
      { value: runs.length, text: String(runs.length) },
    ],
  );
  const columns = [
    ...['measurement', 'median, s', 'mean, s', 'σ, s', 'smallest, s', 'largest, s'],
    ...['MB/s', 'bytes', 'CPU, s', 'peak memory', 'runs'],
  ];
  return tableHtml('All measurements', { columns, rows });
}

/** The letters of doubts, beside what they are about. */
export function marksOf(doubts: readonly string[], notes: DoubtNotes): Html | null {
  return doubts.length === 0 ? null : html` <sup><a href="#doubts">${notes.mark(doubts)}</a></sup>`;
}

/** A table that scrolls by itself where it is too wide, by keyboard, too. */
function tableHtml(title: string, { columns, rows }: Table): Html {
  const head = columns.map((column) => html`<th scope="col">${column}</th>`);
  const body = rows.map(
    ([first = '', ...cells]) =>
      html`<tr><th scope="row">${cellHtml(first)}</th>${cells.map((cell) => html`<td>${cellHtml(cell)}</td>`)}</tr>
`,
  );
  return html`<div class="scroll" role="region" tabindex="0" aria-label="${title}: table"><table><thead><tr>${head}</tr></thead>
<tbody>${body}</tbody></table></div>`;
}

function cellHtml(cell: string | Figure | Html): Html {
  if (cell instanceof Html) return cell;
  if (typeof cell === 'string') return html`${cell}`;
  return html`<data value="${cell.value}">${cell.text}</data>`;
}
