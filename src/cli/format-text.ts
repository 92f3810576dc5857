/**
 * Characters that a terminal may obey instead of showing: controls, C1 included, and marks that
 * turn or join text (Unicode's Cc, Cf, Cs, Zl, Zp). The text of a message may come from a registry.
 */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const UNITS = ['kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** A size in decimal units: `999 B`, `412.3 MB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  let value = bytes;
  let text = '';
  for (const unit of UNITS) {
    value /= 1000;
    text = `${value.toFixed(1)} ${unit}`;
    // Not `value`: 999,950 bytes are 1.0 MB, never 1000.0 kB.
    if (Number(value.toFixed(1)) < 1000) break;
  }
  return text;
}

/** A rate: `98.1 MB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** A duration: `0.8 s`, `12 s`, `3m04s`. */
export function formatDuration(durationMs: number): string {
  const seconds = durationMs / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  return seconds < 59.5 ? `${Math.round(seconds)} s` : formatSeconds(seconds);
}

/** Time left, kept short: `12s`, `3m04s`, `1h02m`, `--` when unknown or beyond four days. */
export function formatSeconds(seconds: number | undefined): string {
  const whole = Math.round(seconds ?? Number.POSITIVE_INFINITY);
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}m${twoDigits(whole % 60)}s`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? `${hours}h${twoDigits(minutes % 60)}m` : '--';
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

/** A share in whole percents, rounded down: only all of it is `100 %`. */
export function formatShare(part: number, whole: number): string {
  return `${whole <= 0 ? 100 : Math.min(100, Math.floor((part / whole) * 100))} %`;
}

/** A count with its noun: `1 layer`, `3 layers`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** A text cut to `maxLength` characters, with the count of those left out. */
export function formatCut(text: string, maxLength: number): string {
  const restLength = text.length - maxLength;
  return restLength <= 0
    ? text
    : `${text.slice(0, maxLength)}… (${formatCount(restLength, 'character')} more)`;
}

/** Names in a sentence: `a`, `a and b`, `a, b and c`. */
export function formatList(names: readonly string[]): string {
  const last = names.at(-1) ?? '';
  return names.length < 2 ? last : `${names.slice(0, -1).join(', ')} and ${last}`;
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
