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

/** Names in a sentence: `a`, `a and b`, `a, b and c`. */
export function formatList(names: readonly string[]): string {
  const last = names.at(-1) ?? '';
  return names.length < 2 ? last : `${names.slice(0, -1).join(', ')} and ${last}`;
}
