import { formatBytes, formatCount, formatRate } from '../api/figures.js';
import type { Comparison } from '../measure/compare.js';
import { DoubtNotes } from '../measure/doubt-notes.js';
import { secondsDigits } from '../measure/figures.js';
import type { Measurement, Report, Shares, Statistics } from '../measure/report.js';
import { SHARE_TEXTS, settingSentences } from '../measure/verdict-text.js';
import { printable } from './format-text.js';

/** Everything fits a terminal of this width. */
const COLUMNS = 80;

/** Widths of the columns of figures, two blanks between them included. */
const WIDTHS = { median: 9, mean: 15, range: 14, rate: 12 } as const;
/** A blank and three letters. */
const MARK_WIDTH = 4;
const NAME_WIDTH = COLUMNS - MARK_WIDTH - Object.values(WIDTHS).reduce((sum, width) => sum + width, 0);

const RATE_NOTE = 'RATE: compressed bytes a second; tar bytes of decode, hash, write and export.';

/** The report as text that fits 80 columns. */
export function reportText(report: Report): string {
  const { measurements, peers, verdict, errors } = report;
  const notes = new DoubtNotes();
  const parts = [headText(report)];
  if (measurements.length > 0) parts.push(tableText(measurements, notes));
  const marked = notes.lines.flatMap((line) => wrap(line, '   '));
  const doubts = [...marked, ...report.doubts.flatMap((doubt) => wrap(`- ${doubt}`, '  '))];
  if (doubts.length > 0) parts.push(['Doubts:', ...doubts].join('\n'));
  if (peers.length > 0) parts.push(['Others:', ...peers.flatMap(peerLines)].join('\n'));
  if (errors.length > 0) {
    const lines = errors.flatMap(({ measurement, message, hint }) => [
      ...wrap(`- ${measurement}: ${message}`, '  '),
      ...wrap(`  hint: ${hint}`, '  '),
    ]);
    parts.push(['Not measured:', ...lines].join('\n'));
  }
  if (verdict !== null) parts.push(verdictText(report, verdict));
  else if (report.complete && report.settings.stage !== 'all') {
    parts.push('Verdict: none, it needs --stage all.');
  } else if (report.complete) {
    parts.push('Verdict: none, it needs the network, the machine and a pull.');
  }
  if (!report.complete) parts.push('This is not complete: the measurement was ended.');
  return `${parts.join('\n\n')}\n`;
}

function headText({ zpull, image, machine, settings }: Report): string {
  const formats = [...new Set(image.layers.map(({ format }) => format))].join(', ');
  const sizes = `${formatBytes(image.blobBytes)} in ${formatCount(image.layers.length, 'layer')} (${formats}), ${formatBytes(image.tarBytes)} of tar`;
  return [
    `zpull ${zpull} bench ${image.reference}`,
    `${image.digest} ${image.platform}`,
    sizes,
    `${formatCount(machine.cores, 'core')} (${machine.cpuModel}), ${formatBytes(machine.memoryBytes)} of memory, ${machine.kernel}, Node ${machine.node}, ${machine.zstd}, ${machine.fileSystem}`,
    `${formatCount(settings.runs, 'run')} each`,
  ]
    .flatMap((line) => wrap(line))
    .join('\n');
}

function tableText(measurements: readonly Measurement[], notes: DoubtNotes): string {
  const head = ['MEDIAN', 'MEAN ± σ', 'RANGE', 'RATE'];
  const rows = measurements.flatMap((measurement) => measurementLines(measurement, notes));
  return [row('SECONDS', head), ...rows, '', ...wrap(RATE_NOTE)].join('\n');
}

/** A line; more for a name or for marks that are too long. */
function measurementLines(measurement: Measurement, notes: DoubtNotes): string[] {
  const { name, wallSeconds, bytesPerSecond, doubts } = measurement;
  const cells = [
    secondsDigits(wallSeconds.median),
    `${secondsDigits(wallSeconds.mean)} ± ${secondsDigits(wallSeconds.standardDeviation)}`,
    rangeText(wallSeconds),
    bytesPerSecond.median > 0 ? formatRate(bytesPerSecond.median) : '',
  ];
  const marks = notes.mark(doubts);
  const [first = '', ...more] = nameLines(name);
  if (marks.length < MARK_WIDTH) return [row(first, cells, marks), ...more];
  return [row(first, cells), ...more, `  doubts ${marks}`];
}

/** A name that fits its column; longer ones go on in the next line. */
function nameLines(name: string): string[] {
  return wrapTo(printable(name), NAME_WIDTH, '  ');
}

function rangeText({ min, max }: Statistics): string {
  return `${secondsDigits(min)}..${secondsDigits(max)}`;
}

function row(name: string, cells: readonly string[], marks = ''): string {
  const widths = Object.values(WIDTHS);
  const figures = cells.map((cell, i) => cell.padStart(widths[i]!)).join('');
  return `${name.padEnd(NAME_WIDTH)}${figures} ${marks}`.trimEnd();
}

function peerLines({ name, version, missing, leaves, proves }: Report['peers'][number]): string[] {
  const text =
    missing === null
      ? `${version ?? 'version unknown'}; leaves ${leaves}; proves ${proves}`
      : `not measured: ${missing}`;
  return wrap(`- ${name}: ${text}`, '  ');
}

function verdictText({ settings }: Report, verdict: NonNullable<Report['verdict']>): string {
  const { reason, shares, advice } = verdict;
  const parts = [
    reason,
    ...settingSentences(verdict),
    ...(shares === null ? [] : [`Of the time of a pull: ${sharesText(shares)}.`]),
    ...advice,
    ...(settings.runs < 3 ? ['These are few runs: more would show how far they lie apart.'] : []),
  ];
  return ['Verdict:', ...parts.flatMap((part) => wrap(`- ${part}`, '  '))].join('\n');
}

/** The shares above one percent, the largest first. */
function sharesText(shares: Shares): string {
  return (Object.keys(SHARE_TEXTS) as Array<keyof Shares>)
    .filter((name) => shares[name] >= 0.01)
    .sort((a, b) => shares[b] - shares[a])
    .map((name) => `${SHARE_TEXTS[name]} ${(shares[name] * 100).toFixed(0)} %`)
    .join(', ');
}

/** A comparison as text that fits 80 columns. */
export function comparisonText({ rows, doubts }: Comparison): string {
  const lines = rows.flatMap(({ name, before, now, ratio, verdict }) => {
    const [first = '', ...more] = nameLines(name);
    const cells = [secondsDigits(before), secondsDigits(now), ratio.toFixed(2), verdict];
    return [comparedRow(first, cells), ...more];
  });
  const table = [comparedRow('SECONDS', ['BEFORE', 'NOW', 'RATIO', '']), ...lines];
  const notes =
    doubts.length === 0 ? [] : ['', 'Doubts:', ...doubts.flatMap((doubt) => wrap(`- ${doubt}`, '  '))];
  return `${[...table, ...notes].join('\n')}\n`;
}

function comparedRow(name: string, [before = '', now = '', ratio = '', verdict = '']: string[]): string {
  const figures = `${before.padStart(10)}${now.padStart(10)}${ratio.padStart(8)}`;
  return `${name.padEnd(NAME_WIDTH)}${figures}  ${verdict}`.trimEnd();
}

function wrap(text: string, indent = ''): string[] {
  return wrapTo(printable(text), COLUMNS, indent);
}

/** Lines of at most `width` characters; words that are longer are cut. */
function wrapTo(text: string, width: number, indent: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const joined = line === '' ? word : `${line} ${word}`;
    if (joined.length <= width) {
      line = joined;
      continue;
    }
    if (line.trim() !== '') lines.push(line);
    line = line === '' ? word : `${indent}${word}`;
    for (; line.length > width; line = `${indent}${line.slice(width)}`) lines.push(line.slice(0, width));
  }
  return [...lines, line];
}
