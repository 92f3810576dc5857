import type { WriteStream } from 'node:tty';
import ora from 'ora';
import { printable, formatBytes, formatRate, formatSeconds } from '../format-text.js';
import { eventLine, type Talk, summaryLine } from './event-line.js';
import { advance, INITIAL_STATE, RateMeter, type ProgressState } from './progress-state.js';
import type { Renderer } from './create-renderer.js';

/** Used where a terminal does not say its width. */
const DEFAULT_COLUMNS = 80;

/** A bar on one line of a terminal, redrawn by ora; lines of their own go above it. */
export function createTtyRenderer(
  stream: WriteStream,
  talk: Talk,
  now: () => number = () => performance.now(),
): Renderer {
  let state = INITIAL_STATE;
  let meter = new RateMeter(0, now());
  const spinner = ora({
    stream,
    isEnabled: true,
    // Else ora makes stdin raw, and Ctrl-C is no signal any more.
    discardStdin: false,
    color: process.env['NO_COLOR'] ? false : 'cyan',
  }).start(state.message);
  return {
    onEvent: (event) => {
      state = advance(state, event);
      if (event.event === 'resolving' || event.event === 'exporting') meter = new RateMeter(0, now());
      if (event.event === 'progress' || event.event === 'written') meter.update(state.receivedBytes, now());
      const line = eventLine(event, talk);
      // ora hooks the stream: it clears the bar, lets the line through and draws the bar again below.
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
/** A shorter bar says nothing. */
const MIN_BAR_CELLS = 8;
/** A shorter rest of a message says nothing. */
const MIN_MESSAGE_CELLS = 12;
/** Smallest columns a terminal is believed to have; a pseudo-terminal may say 0. */
const MIN_COLUMNS = 20;
/** The spinner with its blank, and the last column: some terminals wrap as soon as it is written. */
const TAKEN_COLUMNS = 3;

/**
 * One line of progress that fits a terminal of so many columns beside a spinner:
 * `[eta 12s] ████░░  412.3 MB/1.2 GB  98.1 MB/s  2/5 layers`. What is least needed goes first:
 * the bar's length, the message, the rate, the bar.
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

/** `cells` characters of which a share is filled. */
export function bar(part: number, whole: number, cells: number): string {
  const share = whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
  const filled = Math.floor(share * cells);
  return '█'.repeat(filled) + '░'.repeat(cells - filled);
}

/** The beginning of a text that fits, or nothing when too little would be left. Any foreign letter may be two columns wide. */
function cut(text: string, room: number): string {
  const plain = text.replace(/[^\x20-\x7e]/gu, '?');
  if (plain.length <= room) return plain;
  return room < MIN_MESSAGE_CELLS ? '' : `${plain.slice(0, room - 3)}...`;
}
