import { DoubtNotes } from '../doubt-notes.js';
import { find, formatSecondsOf, medianRun, ofStage, secondsDigits } from '../figures.js';
import type { Measurement, Report, Run, Shares } from '../report.js';
import { SHARE_TEXTS } from '../verdict-text.js';
import { type Html, html } from './markup.js';
import { figure, marksOf, type Table } from './tables.js';
import { pullOf, usualPull } from './usual-pull.js';

/** A part of a bar. */
interface Segment {
  readonly label: string;
  readonly value: number;
  /** Its color, a class of the style sheet. */
  readonly color: string;
}

interface Bar {
  readonly label: string;
  readonly segments: readonly Segment[];
  /** Behind the bar. */
  readonly text: string;
  /** How far the runs lie apart. */
  readonly spread?: { readonly low: number; readonly high: number };
  /** What makes it doubtful. */
  readonly doubts?: readonly string[];
}

/** Where the wall time of the median pull with default settings went. */
export function sharesFigure(shares: Shares): Html {
  const names = Object.keys(SHARE_TEXTS) as Array<keyof Shares>;
  const segments = names.map((name) => ({
    label: SHARE_TEXTS[name],
    value: shares[name] * 100,
    color: `c-${name}`,
  }));
  const table: Table = {
    columns: ['part', 'percent of the time'],
    rows: segments.map(({ label, value }) => [label, { value: value / 100, text: value.toFixed(1) }]),
  };
  const bar = { label: 'one pull', segments, text: '' };
  return figure(
    'shares',
    'Where the time of a pull goes',
    html`${legend(segments)}${bars([bar], '%')}`,
    table,
  );
}

const STAGE_TEXTS = {
  resolve: 'resolve',
  metadata: 'metadata',
  fetch: 'fetch',
  decode: 'decode',
  hash: 'hash',
  write: 'write',
  sync: 'sync',
  prove: 'prove',
} as const;
const STAGE_NAMES = Object.keys(STAGE_TEXTS) as Array<keyof typeof STAGE_TEXTS>;

/** What the threads did in each run with default settings, and in the median run of each other measurement. */
export function stagesFigure(report: Report): Html | null {
  const usual = usualPull(report);
  const runs = report.measurements.flatMap((measurement) => {
    if (measurement !== usual) return { label: measurement.name, run: medianRun(measurement) };
    return measurement.runs.map((run, i) => ({ label: `${measurement.name}, run ${i + 1}`, run }));
  });
  const known = runs.flatMap(({ label, run }) => (run.stages === null ? [] : { label, stages: run.stages }));
  if (known.length === 0) return null;
  const rows = known.map(({ label, stages }) => ({ label, segments: stageSegments(stages) }));
  const table: Table = {
    columns: ['run', ...rows[0]!.segments.map(({ label }) => `${label}, s`)],
    rows: rows.map(({ label, segments }) => [
      label,
      ...segments.map(({ value }) => ({ value, text: secondsDigits(value) })),
    ]),
  };
  const list = rows.map((row) => ({ ...row, text: formatSecondsOf(sum(row.segments)) }));
  const keys = STAGE_NAMES.map((name) => ({ label: STAGE_TEXTS[name], color: `c-${name}` }));
  const drawing = html`<p>Seconds summed over all threads. Full color: work. Pale: waiting.</p>
${legend(keys)}${bars(list, 's')}`;
  return figure('stages', 'What the threads did', drawing, table);
}

function stageSegments(stages: NonNullable<Run['stages']>): Segment[] {
  return STAGE_NAMES.flatMap((name) => [
    { label: `${STAGE_TEXTS[name]}, work`, value: stages[name].workMs / 1000, color: `c-${name}` },
    { label: `${STAGE_TEXTS[name]}, wait`, value: stages[name].waitMs / 1000, color: `c-${name} wait` },
  ]);
}

/** How long pulls take, those of others, and what network and machine alone take. */
export function comparisonFigure(report: Report, notes: DoubtNotes): Html | null {
  const list = comparedBars(report);
  if (list.length === 0) return null;
  const table: Table = {
    columns: ['what', 'median, s', 'smallest, s', 'largest, s'],
    rows: list.map(({ label, segments, spread }) => [
      label,
      ...[segments[0]!.value, spread?.low, spread?.high].map((value) =>
        value === undefined ? '' : { value, text: secondsDigits(value) },
      ),
    ]),
  };
  const drawing = html`<p>Seconds, the median; the line spans all runs. Shorter is better.</p>${bars(list, 's', notes)}`;
  return figure('comparison', 'Against others and the floor', drawing, table);
}

function comparedBars(report: Report): Bar[] {
  const { verdict } = report;
  const usual = usualPull(report);
  if (usual === undefined) return [];
  const floor =
    verdict === null || verdict.floorRatio === null
      ? []
      : [
          plainBar(
            'floor: the longest of what parts take alone',
            usual.wallSeconds.median / verdict.floorRatio,
          ),
        ];
  const parts = [`network/c${usual.connections}`, 'machine/together/all'].map((id) => find(report, id));
  const best = verdict === null ? undefined : pullOf(report, verdict.best);
  const peers = ofStage(report, 'peer');
  return [
    ...floor,
    ...parts.flatMap((part) => (part === undefined ? [] : barOf(part, 'c-floor'))),
    barOf(usual, 'c-ours'),
    ...(best === undefined || best === usual ? [] : [barOf(best, 'c-ours')]),
    ...peers.map((peer) => barOf(peer, peer.peer === 'zpull' ? 'c-ours' : 'c-peer')),
  ];
}

function barOf({ name, wallSeconds: { median, min, max }, doubts }: Measurement, color: string): Bar {
  return { ...plainBar(name, median, color), spread: { low: min, high: max }, doubts };
}

function plainBar(label: string, seconds: number, color = 'c-floor'): Bar {
  return { label, segments: [{ label, value: seconds, color }], text: formatSecondsOf(seconds) };
}

/** Bars of one scale: the longest, or the largest spread, takes all of the width. */
function bars(list: readonly Bar[], unit: string, notes = new DoubtNotes()): Html {
  const longest = Math.max(...list.map(({ segments, spread }) => Math.max(sum(segments), spread?.high ?? 0)));
  const percent = (value: number) => `${((longest > 0 ? value / longest : 0) * 100).toFixed(3)}%`;
  return html`<ul class="bars">${list.map(({ label, segments, text, spread, doubts = [] }) => {
    let end = 0;
    const rects = segments.map(({ label: part, value, color }) => {
      end += value;
      return html`<rect class="${color}" x="${percent(end - value)}" width="${percent(value)}" height="100%"><title>${part}: ${secondsDigits(value)} ${unit}</title></rect>`;
    });
    const line =
      spread === undefined
        ? null
        : html`<line class="spread" x1="${percent(spread.low)}" x2="${percent(spread.high)}" y1="50%" y2="50%"/>`;
    return html`<li><span>${label}${marksOf(doubts, notes)}</span> <b>${text}</b><svg role="img" aria-label="${label}: ${text}">${rects}${line}</svg></li>
`;
  })}</ul>`;
}

function legend(keys: readonly Pick<Segment, 'label' | 'color'>[]): Html {
  return html`<ul class="legend">${keys.map(
    ({ label, color }) =>
      html`<li><svg aria-hidden="true"><rect class="${color}" width="100%" height="100%"/></svg>${label}</li>`,
  )}</ul>
`;
}

function sum(segments: readonly Segment[]): number {
  return segments.reduce((total, { value }) => total + value, 0);
}
