import type { WriteStream } from 'node:tty';
import ora from 'ora';
import { printable } from '../printable.js';
import { eventLine, type Talk } from './event-line.js';
import { progressLine } from './progress-line.js';
import { advance, INITIAL_STATE } from './progress-state.js';
import { RateMeter } from './rate-meter.js';
import type { Renderer } from './renderer.js';
import { summaryLine } from './summary.js';

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
