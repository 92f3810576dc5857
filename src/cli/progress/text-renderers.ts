import type { WriteStream } from 'node:tty';
import {
  formatBytes,
  formatCount,
  formatRate,
  formatSeconds,
  formatShare,
  printable,
} from '../format-text.js';
import { type DisplayOptions, eventLine, type Renderer, type ShownEvent, summaryLine } from './renderer.js';

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

/** A log that is silent for longer looks like a hang. */
const LINE_EVERY_MS = 5000;

/** Prints a line at every step, and one every five seconds in between. */
export function createPlainRenderer(
  stream: NodeJS.WritableStream,
  display: DisplayOptions,
  now: () => number = () => performance.now(),
): Renderer {
  let state = INITIAL_STATE;
  let meter = new RateMeter(0, now());
  const print = (line: string): void => {
    stream.write(`${line}\n`);
  };
  const timer = setInterval(() => print(printable(stateLine(state, meter.bytesPerSecond))), LINE_EVERY_MS);
  timer.unref();
  return {
    onEvent: (event) => {
      state = advance(state, event);
      if (event.event === 'resolving' || event.event === 'exporting') meter = new RateMeter(0, now());
      if (event.event === 'progress' || event.event === 'written') meter.update(state.receivedBytes, now());
      const step = stepLine(state.image, event, display.cachedWhere);
      if (step !== undefined) {
        print(printable(step));
        timer.refresh();
      }
      const line = eventLine(event, display);
      if (line !== undefined) print(line);
    },
    end: (result) => {
      clearInterval(timer);
      if (result !== undefined) print(printable(summaryLine(result)));
    },
  };
}

function stepLine(image: string, event: ShownEvent, cachedWhere = 'in the store'): string | undefined {
  switch (event.event) {
    case 'resolving':
      return `${image}: resolving`;
    case 'resolved': {
      const { digest, platform, layers, totalBytes } = event;
      return `${image}: ${digest} ${platform}, ${formatCount(layers, 'layer')}, ${formatBytes(totalBytes)}`;
    }
    case 'planned': {
      const { totalBytes, reuseBytes, requests } = event;
      const reuse = reuseBytes > 0 ? `, ${formatBytes(reuseBytes)} are ${cachedWhere}` : '';
      return `${image}: fetching ${formatBytes(totalBytes)} in ${formatCount(requests, 'request')}${reuse}`;
    }
    case 'exporting':
      return `writing ${event.destination}: ${formatBytes(event.totalBytes)}`;
    default:
      return undefined;
  }
}

function stateLine(state: ProgressState, bytesPerSecond: number): string {
  const { image, message, totalBytes } = state;
  if (totalBytes === 0) return `${image}: ${message}`;
  const receivedBytes = Math.min(state.receivedBytes, totalBytes);
  const left = totalBytes - receivedBytes;
  const eta = formatSeconds(bytesPerSecond > 0 ? left / bytesPerSecond : undefined);
  const size = `${formatBytes(receivedBytes)}/${formatBytes(totalBytes)}`;
  const share = formatShare(receivedBytes, totalBytes);
  return `${image}: ${size} ${share}, ${formatRate(bytesPerSecond)}, eta ${eta}, ${message}`;
}

/** What a display shows of a pull or an export. */
export interface ProgressState {
  /** The image, or the destination of an export. */
  readonly image: string;
  /** Received by a pull or written by an export. */
  readonly receivedBytes: number;
  readonly totalBytes: number;
  /** Until the plan is made the total is an upper bound. */
  readonly exact: boolean;
  readonly layersDone: number;
  readonly layers: number;
  /** The current step, as the user reads it. */
  readonly message: string;
}

export const INITIAL_STATE: ProgressState = {
  image: '',
  receivedBytes: 0,
  totalBytes: 0,
  exact: false,
  layersDone: 0,
  layers: 0,
  message: 'starting',
};

/** The state after an event. */
export function advance(state: ProgressState, event: ShownEvent): ProgressState {
  switch (event.event) {
    case 'resolving':
      return { ...INITIAL_STATE, image: event.image, message: 'resolving' };
    case 'resolved': {
      const { layers, totalBytes } = event;
      return { ...state, layers, totalBytes, message: 'reading metadata' };
    }
    case 'planned':
      return withMessage({ ...state, totalBytes: event.totalBytes, exact: true });
    case 'progress': {
      const { receivedBytes, totalBytes } = event;
      const next = { ...state, receivedBytes, totalBytes };
      // The message of a retry stays until bytes come again.
      return receivedBytes === state.receivedBytes ? next : withMessage(next);
    }
    case 'layer':
      return withMessage({ ...state, layersDone: event.done, layers: event.of });
    case 'waiting-for-layers':
      return { ...state, message: 'waiting for another process' };
    case 'miss':
      return { ...state, message: `retrying: ${event.message}` };
    case 'waiting':
      return { ...state, message: `waiting as ${event.host} asks` };
    case 'exporting': {
      const { destination, totalBytes } = event;
      return { ...INITIAL_STATE, image: destination, totalBytes, exact: true, message: 'writing' };
    }
    case 'written': {
      const { writtenBytes, totalBytes } = event;
      const message = writtenBytes >= totalBytes ? 'verifying' : 'writing';
      return { ...state, receivedBytes: writtenBytes, totalBytes, message };
    }
    case 'warning':
    case 'debug':
      return state;
  }
}

/**
 * The state with a message of how many layers are done, and `verifying` once every byte is
 * received.
 */
function withMessage(state: ProgressState): ProgressState {
  if (!state.exact) return state;
  const verifying = state.receivedBytes >= state.totalBytes;
  const layers = `${state.layersDone}/${formatCount(state.layers, 'layer')}`;
  const againBytes = state.receivedBytes - state.totalBytes;
  if (againBytes > 0) return { ...state, message: `${layers}, ${formatBytes(againBytes)} fetched again` };
  return { ...state, message: verifying ? `verifying ${layers}` : layers };
}

/** Time constant of the weights; with a shorter one the estimate of the time left jumps. */
const TAU_MS = 3000;

/**
 * Bytes a second, smoothed with exponential weights over uneven steps, and divided by the sum of
 * the weights so far: else the first seconds would show a share of the rate.
 */
export class RateMeter {
  #bytes: number;
  #now: number;
  #weighted = 0;
  #weights = 0;

  constructor(bytes: number, now: number) {
    this.#bytes = bytes;
    this.#now = now;
  }

  /** Records that there are `bytes` bytes at `now` (milliseconds). */
  update(bytes: number, now: number): void {
    const passedMs = now - this.#now;
    if (passedMs <= 0) return;
    const fade = Math.exp(-passedMs / TAU_MS);
    const rate = (Math.max(0, bytes - this.#bytes) / passedMs) * 1000;
    this.#weighted = this.#weighted * fade + rate * (1 - fade);
    this.#weights = this.#weights * fade + (1 - fade);
    this.#bytes = bytes;
    this.#now = now;
  }

  /** 0 before the first update. */
  get bytesPerSecond(): number {
    return this.#weights === 0 ? 0 : this.#weighted / this.#weights;
  }
}
