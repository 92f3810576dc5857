import type { CopyResult } from '../../api/copy.js';
import type { ExportEvent } from '../../api/export.js';
import type { PullEvent, PullResult } from '../../api/pull.js';
import { jsonLine } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { type DisplayOptions, eventLine } from './event-text.js';

export type ShownEvent = PullEvent | ExportEvent;

/** Shows a pull, a copy or an export on stderr. */
export interface Renderer {
  onEvent(event: ShownEvent): void;
  /** Ends the display; with a result it leaves a summary. */
  end(result?: PullResult | CopyResult): void;
}

const SILENT: Renderer = { onEvent: () => {}, end: () => {} };

/**
 * Creates the renderer that the options and the terminal ask for. Renderers with code of their own
 * are loaded here. `cachedWhere`: see `DisplayOptions`.
 */
export async function createRenderer(
  options: OptionValues,
  stream: NodeJS.WriteStream = process.stderr,
  cachedWhere?: string,
): Promise<Renderer> {
  const { verbose = false, debug = false } = options;
  const display: DisplayOptions = { verbose, debug, ...(cachedWhere !== undefined && { cachedWhere }) };
  switch (progressKind(options, stream.isTTY === true && stream.columns > 0, process.env['TERM'])) {
    case 'none':
      return options.quiet === true ? SILENT : createWarningRenderer(stream, display);
    case 'json':
      return createJsonRenderer(stream, display);
    case 'tty':
      return (await import('./tty-renderer.js')).createTtyRenderer(stream, display);
    case 'plain':
      return (await import('./plain-renderer.js')).createPlainRenderer(stream, display);
  }
}

/**
 * Runs `work` with a display, and ends the display with its result or without one when it throws.
 */
export async function withRenderer<T extends PullResult | CopyResult>(
  renderer: Renderer,
  work: (onEvent: Renderer['onEvent']) => Promise<T>,
): Promise<T> {
  try {
    const result = await work(renderer.onEvent);
    renderer.end(result);
    return result;
  } catch (error) {
    renderer.end();
    throw error;
  }
}

/**
 * Which kind of progress to show. A bar needs a terminal that moves its cursor and has columns (ora
 * loops forever without); elsewhere lines are printed.
 */
export function progressKind(
  { progress = 'auto', quiet = false }: OptionValues,
  isTerminal: boolean,
  term: string | undefined,
): 'tty' | 'plain' | 'json' | 'none' {
  if (quiet) return 'none';
  if (progress !== 'auto' && progress !== 'tty') return progress;
  return isTerminal && term !== 'dumb' ? 'tty' : 'plain';
}

/** Prints every event as a line of JSON; debug events only with `--debug`. */
export function createJsonRenderer(stream: NodeJS.WritableStream, { debug }: DisplayOptions): Renderer {
  return {
    onEvent: (event) => {
      if (event.event !== 'debug' || debug) stream.write(jsonLine(event));
    },
    end: () => {},
  };
}

/** Prints warnings and nothing else. */
function createWarningRenderer(stream: NodeJS.WritableStream, display: DisplayOptions): Renderer {
  return {
    onEvent: (event) => {
      if (event.event === 'warning') stream.write(`${eventLine(event, display)}\n`);
    },
    end: () => {},
  };
}
