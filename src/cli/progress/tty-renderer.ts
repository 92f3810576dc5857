import type { WriteStream } from 'node:tty';
import { blockLines, summaryFor, wrapped } from './block.js';
import { type DisplayOptions, eventLine, type Renderer, summaryTexts } from './renderer.js';
import { ProgressTracker } from './state.js';

/** Used where a terminal does not say its size. */
const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;
/** That of ora's spinner. */
const FRAME_MS = 80;

/** Shows a block of lines on a terminal, redrawn by ora, and other lines above it. */
export async function createTtyRenderer(
  stream: WriteStream,
  display: DisplayOptions,
  now: () => number = () => performance.now(),
): Promise<Renderer> {
  // An ES module, which a CommonJS bundle can import but not require before Node 22.12.
  const { default: ora } = await import('ora');
  const tracker = new ProgressTracker(now);
  let drawnColumns = stream.columns || DEFAULT_COLUMNS;
  const draw = (): string => {
    drawnColumns = stream.columns || DEFAULT_COLUMNS;
    const size = { columns: drawnColumns, rows: stream.rows || DEFAULT_ROWS };
    return blockLines(tracker.state, tracker.bytesPerSecond, now(), size).join('\n');
  };
  const spinner = ora({
    stream,
    isEnabled: true,
    // By default ora makes stdin raw, and Ctrl-C sends no signal any more.
    discardStdin: false,
    color: process.env['NO_COLOR'] ? false : 'cyan',
    interval: FRAME_MS,
  });
  const redraw = (): void => {
    spinner.text = draw();
  };
  const timer = setInterval(redraw, FRAME_MS);
  const resized = (): void => {
    const extra = extraRows(spinner.text, drawnColumns, stream.columns || DEFAULT_COLUMNS);
    spinner.clear();
    redraw();
    // ora draws the block again after a write that ends a line.
    stream.write(extra > 0 ? `\u001b[${extra}A\u001b[J\r` : '\r');
  };
  stream.on('resize', resized);
  spinner.start(draw());
  return {
    onEvent: (event) => {
      const isFirst = tracker.state.image === '';
      tracker.add(event);
      if (isFirst) redraw();
      // The block itself counts a wait down.
      const line = event.event === 'waiting' ? undefined : eventLine(event, display);
      // ora hooks the stream: it clears the block, writes the line and draws the block again below.
      if (line !== undefined) stream.write(`${wrapped(line, stream.columns || DEFAULT_COLUMNS)}\n`);
    },
    end: (result) => {
      clearInterval(timer);
      stream.off('resize', resized);
      spinner.stop();
      if (result === undefined) return;
      const columns = stream.columns || DEFAULT_COLUMNS;
      stream.write(`${summaryFor(result.image, summaryTexts(result), columns)}\n`);
    },
  };
}

/**
 * How many more rows these lines take where a terminal that became narrower has wrapped them, as
 * most do; the spinner takes two columns of the first line.
 */
function extraRows(text: string, drawnColumns: number, columns: number): number {
  if (columns >= drawnColumns) return 0;
  const widths = text.split('\n').map((line, i) => line.length + (i === 0 ? 2 : 0));
  return widths.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns)) - 1, 0);
}
