import { formatBytes, formatRate, formatSeconds } from '../../api/figures.js';
import type { LayerProgress } from '../../api/pull.js';
import { printable } from '../format-text.js';
import { isPaused, type ProgressState, secondsLeft, stepOf, waits } from './state.js';

/** The part of a terminal that a block may take. */
export interface BlockSize {
  readonly columns: number;
  readonly rows: number;
}

/** A pseudo-terminal may say that it has 0 columns. */
const MIN_COLUMNS = 20;
/** Some terminals wrap once the last column is written. */
const LAST_COLUMN = 1;
/** The indent of all lines but the first: they align with the name, which follows a spinner and a blank. */
const INDENT = '  ';

/**
 * The lines of an image: its name, a line a layer, the total, and what is waited for. No line is
 * wider than the terminal, and there are fewer than it has rows: layers that do not fit are summed
 * up in one line. The first line comes after a spinner and a blank.
 */
export function blockLines(
  state: ProgressState,
  bytesPerSecond: number,
  nowMs: number,
  size: BlockSize,
): string[] {
  const room = Math.max(MIN_COLUMNS, size.columns) - LAST_COLUMN - INDENT.length;
  const name = headingOf(state, room);
  const total = longest(totalTexts(state, bytesPerSecond, nowMs, room), room);
  const told = waits(state, nowMs).map((texts) => longest(texts, room));
  // The name, the total, and a row that stays free for the cursor.
  const layers = layerLines([...state.layers.values()], room, size.rows - 3 - told.length);
  return [name, ...[...layers, total, ...told].map((line) => INDENT + line)];
}

/** The one line that stays of a finished block: the most words of it that fit. */
export function summaryFor(image: string, texts: readonly string[], columns: number): string {
  const lines = namesOf(image).flatMap((name) => texts.map((text) => `${name}: ${text}`));
  return longest(lines, Math.max(MIN_COLUMNS, columns) - LAST_COLUMN);
}

function headingOf({ image, platform }: ProgressState, room: number): string {
  const names = namesOf(image);
  return longest([...(platform === '' ? [] : [`${image}  ${platform}`]), ...names], room);
}

/** An image's name, with the start of its digest alone, and without what stands in front. */
function namesOf(image: string): string[] {
  const short = image.replace(/(@sha256:[0-9a-f]{12})[0-9a-f]{52}$/, '$1');
  const parts = short.split('/');
  return [image, short, ...parts.slice(1).map((_, i) => `…/${parts.slice(i + 1).join('/')}`)];
}

/** The widest bar; a longer one shows nothing more. */
const MAX_BAR_CELLS = 30;
/** A shorter bar is not worth its columns. */
const MIN_BAR_CELLS = 8;
/** Of `999.9 MB/999.9 MB`, `  999.9 MB/s  eta 59m59s` and `  resumed 999.9 MB`. */
const SIZES_CELLS = 17;
const RATE_CELLS = 24;
const NOTE_CELLS = 18;
/** From this room on a bar leaves some for a note. */
const ROOM_WITH_NOTES = 77;

function noteCells(room: number): number {
  return room >= ROOM_WITH_NOTES ? NOTE_CELLS : 0;
}

/** The texts of the total, longest first. */
function totalTexts(
  state: ProgressState,
  bytesPerSecond: number,
  nowMs: number,
  room: number,
): [string, ...string[]] {
  const step = stepOf(state);
  if (!state.exact) return [step];
  const { totalBytes } = state;
  const receivedBytes = Math.min(state.receivedBytes, totalBytes);
  const left = secondsLeft(state, bytesPerSecond, nowMs);
  const sizes = `${formatBytes(receivedBytes)}/${formatBytes(totalBytes)}`;
  const cells = Math.min(MAX_BAR_CELLS, room - SIZES_CELLS - RATE_CELLS - 2 - noteCells(room));
  const drawn = cells < MIN_BAR_CELLS ? '' : `${bar(receivedBytes, totalBytes, cells)}  `;
  const isFlowing = receivedBytes < totalBytes && bytesPerSecond >= 1 && !isPaused(state, nowMs);
  const rate = isFlowing ? `  ${formatRate(bytesPerSecond)}` : '';
  const eta = left === undefined ? '' : `  eta ${formatSeconds(left)}`;
  return [
    `${drawn}${sizes}${rate}${eta}  ${step}`,
    `${drawn}${sizes}${rate}${eta}`,
    `${sizes}${rate}${eta}`,
    `${sizes}${eta}`,
    sizes,
  ];
}

/** States in the order in which layers are worth a line. */
const ORDER = ['fetching', 'verifying', 'shared', 'waiting', 'done', 'reused'] as const;

/** At most `maxLines` lines, in the order of the layers; the last one sums up what does not fit. */
function layerLines(layers: readonly LayerProgress[], room: number, maxLines: number): string[] {
  if (layers.length <= maxLines) return layers.map((layer) => layerLine(layer, room));
  if (maxLines <= 0) return [];
  const byWorth = layers.toSorted((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
  const shown = new Set(byWorth.slice(0, maxLines - 1));
  const others = layers.filter((layer) => !shown.has(layer));
  const counts = ORDER.flatMap((state) => {
    const count = others.filter((layer) => layer.state === state).length;
    return count === 0 ? [] : [`${count} ${state}`];
  });
  const more = shown.size === 0 ? `${layers.length} layers` : `${others.length} more`;
  const [only] = counts.length === 1 ? others : [];
  return [
    ...layers.filter((layer) => shown.has(layer)).map((layer) => layerLine(layer, room)),
    longest([only ? `${more} ${only.state}` : `${more}: ${counts.join(', ')}`, more], room),
  ];
}

const DIGEST_DIGITS = 12;
const STATE_CELLS = 'verifying'.length;

/** `3e4bbbeae698  fetching   ████░░░░  1.2 MB/3.4 MB  resumed 0.5 MB`. */
function layerLine(layer: LayerProgress, room: number): string {
  const { state, sizeBytes, totalBytes, reusedBytes, resumedBytes } = layer;
  const id = plainText(layer.digest.replace(/^sha256:/, '').slice(0, DIGEST_DIGITS));
  if (state === 'shared') {
    const texts = [`${id}  shared with another process`, `${id}  shared`] as const;
    return longest([`${texts[0]}  ${formatBytes(sizeBytes)}`, ...texts], room);
  }
  const begin = `${id}  ${state.padEnd(STATE_CELLS)}  `;
  const reused = reusedBytes > 0 ? `reused ${formatBytes(reusedBytes)}` : '';
  const resumed = resumedBytes > 0 ? `resumed ${formatBytes(resumedBytes)}` : '';
  const notes = [[reused, resumed].filter((note) => note !== '').join(', '), resumed || reused];
  const withNotes = (line: string) => [
    ...notes.filter((note) => note !== '').map((note) => `${line}  ${note}`),
    line,
  ];
  if (state !== 'fetching' && state !== 'verifying') {
    const bytes = state === 'done' ? totalBytes : sizeBytes;
    return longest([...withNotes(begin + formatBytes(bytes)), `${id}  ${state}`], room);
  }
  const receivedBytes = Math.min(layer.receivedBytes, totalBytes);
  const sizes = `${formatBytes(receivedBytes)}/${formatBytes(totalBytes)}`.padEnd(SIZES_CELLS);
  const free = room - begin.length - SIZES_CELLS - 2 - noteCells(room);
  const cells = Math.min(MAX_BAR_CELLS, free);
  const drawn = cells < MIN_BAR_CELLS ? '' : `${bar(receivedBytes, totalBytes, cells)}  `;
  const texts = [...withNotes(`${begin}${drawn}${sizes}`), begin + sizes, `${id}  ${state}`];
  return longest(texts, room);
}

/** A bar of `cells` characters. */
export function bar(part: number, whole: number, cells: number): string {
  const share = whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 1;
  const filled = Math.floor(share * cells);
  return '█'.repeat(filled) + '░'.repeat(cells - filled);
}

/** The first of these texts that fits, or the words of the last one that do. */
function longest(texts: readonly string[], room: number): string {
  const plain = texts.map((text) => plainText(text).trimEnd());
  return plain.find((text) => text.length <= room) ?? wordsOf(plain.at(-1) ?? '', room);
}

/** The text in lines that end between words, where a terminal of so many columns would break it. */
export function wrapped(text: string, columns: number): string {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && line.length < columns) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  return lines.join('\n');
}

/** As many words as fit, with an ellipsis; of a first word that does not, what fits. */
function wordsOf(text: string, room: number): string {
  const end = text.lastIndexOf(' ', room - 2);
  return end > 0 ? `${text.slice(0, end).replace(/[ ,;:]+$/, '')} …` : `${text.slice(0, room - 1)}…`;
}

/** The text with all that may not be one column wide as `?`. */
function plainText(text: string): string {
  return printable(text).replace(/[^\x20-\x7e\u00a1-\u024f█░…]/gu, '?');
}
