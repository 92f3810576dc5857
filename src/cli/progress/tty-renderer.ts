import type { WriteStream } from 'node:tty';
import { formatBytes, formatRate, formatSeconds, printable } from '../format-text.js';
import { type DisplayOptions, eventLine, summaryLine } from './event-text.js';
import type { Renderer } from './renderer.js';
import { advance, INITIAL_STATE, type ProgressState, RateMeter } from './state.js';

/** Used where a terminal does not say its width. */
const DEFAULT_COLUMNS = 80;

/** Shows a bar on one line of a terminal, redrawn by ora, and other lines above it. */
export async function createTtyRenderer(
  stream: WriteStream,
  display: DisplayOptions,
  now: () => number = () => performance.now(),
): Promise<Renderer> {
  // An ES module, which a CommonJS bundle can import but not require before Node 22.12.
  const { default: ora } = await import('ora');
  let state = INITIAL_STATE;
  let meter = new RateMeter(0, now());
  const spinner = ora({
    stream,
    isEnabled: true,
    // By default ora makes stdin raw, and Ctrl-C sends no signal any more.
    discardStdin: false,
    color: process.env['NO_COLOR'] ? false : 'cyan',
  }).start(state.message);
  return {
    onEvent: (event) => {
      state = advance(state, event);
      if (event.event === 'resolving' || event.event === 'exporting') meter = new RateMeter(0, now());
      if (event.event === 'progress' || event.event === 'written') meter.update(state.receivedBytes, now());
      const line = eventLine(event, display);
      // ora hooks the stream: it clears the bar, writes the line and draws the bar again below.
      if (line !== undefined) stream.write(`${line}\n`);
      spinner.text = progressLine(state, meter.bytesPerSecond, stream.columns || DEFAULT_COLUMNS);
    },
    end: (result) => {
      spinner.stop();
      if (result !== undefined) stream.write(`${printable(summaryLine(result))}\n`);
    },
  };
}

/** The full bar, from `FULL_COLUMNS` columns on. */
const BAR_CELLS = 40;
const FULL_COLUMNS = 100;
/** A shorter bar is not worth its columns. */
const MIN_BAR_CELLS = 8;
/** A message cut shorter is left out. */
const MIN_MESSAGE_CELLS = 12;
/** A pseudo-terminal may say that it has 0 columns. */
const MIN_COLUMNS = 20;
/** The spinner with its blank, and the last column: some terminals wrap once it is written. */
const TAKEN_COLUMNS = 3;

/**
 * One line of progress that fits a terminal of so many columns beside a spinner: `[eta 12s] ████░░
 * 412.3 MB/1.2 GB  98.1 MB/s  2/5 layers`. Where columns are short, these go in this order: length
 * of the bar, message, rate, bar.
 */
export function progressLine(state: ProgressState, bytesPerSecond: number, columns: number): string {
  const room = Math.max(MIN_COLUMNS, columns) - TAKEN_COLUMNS;
  const { totalBytes, exact } = state;
  const receivedBytes = Math.min(state.receivedBytes, totalBytes);
  const left = totalBytes - receivedBytes;
  const eta = `[eta ${formatSeconds(left === 0 ? 0 : bytesPerSecond > 0 ? left / bytesPerSecond : undefined)}]`;
  const size = `${formatBytes(receivedBytes)}/${exact ? '' : '≤'}${formatBytes(totalBytes)}`;
  const rate = formatRate(bytesPerSecond);
  const wanted = columns >= FULL_COLUMNS ? BAR_CELLS : columns - FULL_COLUMNS + BAR_CELLS;
  const withRate = room - `${eta}   ${size}  ${rate}`.length;
  const withoutRate = room - `${eta}   ${size}`.length;
  const cells = Math.max(MIN_BAR_CELLS, Math.min(wanted, withRate));
  if (withRate >= cells) {
    const line = `${eta} ${bar(receivedBytes, totalBytes, cells)}  ${size}  ${rate}`;
    const rest = cut(state.message, room - line.length - 2);
    return rest === '' ? line : `${line}  ${rest}`;
  }
  if (withoutRate >= MIN_BAR_CELLS) {
    return `${eta} ${bar(receivedBytes, totalBytes, MIN_BAR_CELLS)}  ${size}`;
  }
  return `${eta} ${size}`.slice(0, room);
}

/** A bar of `cells` characters. */
export function bar(part: number, whole: number, cells: number): string {
  const share = whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
  const filled = Math.floor(share * cells);
  return '█'.repeat(filled) + '░'.repeat(cells - filled);
}

/**
 * The part of a text that fits, or nothing when it would be too short. Letters outside of ASCII, of
 * which some are two columns wide, become `?`.
 */
function cut(text: string, room: number): string {
  const plain = text.replace(/[^\x20-\x7e]/gu, '?');
  if (plain.length <= room) return plain;
  return room < MIN_MESSAGE_CELLS ? '' : `${plain.slice(0, room - 3)}...`;
}
