import type { OptionValues } from '../options.js';
import { type Talk, eventLine } from './event-line.js';
import type { CopyResult } from '../../api/copy.js';
import type { ExportEvent } from '../../api/export.js';
import type { PullEvent, PullResult } from '../../api/pull.js';
import { jsonLine } from '../format-text.js';

/** What a display hears of. */
export type ShownEvent = PullEvent | ExportEvent;

/** Shows a pull, a copy or an export on stderr. */
export interface Renderer {
  onEvent(event: ShownEvent): void;
  /** The display goes away; with a result it leaves a summary. */
  end(result?: PullResult | CopyResult): void;
}

/** What `work` resolves to; the display goes away with it, or with what `work` throws. */
export async function shownBy<T extends PullResult | CopyResult>(
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

const SILENT: Renderer = { onEvent: () => {}, end: () => {} };

/** The renderer that the options and the terminal ask for, each loaded when it is the one. `place`: as `Talk` has it. */
export async function createRenderer(
  options: OptionValues,
  stream: NodeJS.WriteStream = process.stderr,
  place?: string,
): Promise<Renderer> {
  const { verbose = false, debug = false } = options;
  const talk: Talk = { verbose, debug, ...(place !== undefined && { place }) };
  switch (progressKind(options, stream.isTTY === true && stream.columns > 0, process.env['TERM'])) {
    case 'none':
      if (options.quiet === true) return SILENT;
      return (await import('./warning-renderer.js')).createWarningRenderer(stream, talk);
    case 'json':
      return (await import('./json-renderer.js')).createJsonRenderer(stream, talk);
    case 'tty':
      return (await import('./tty-renderer.js')).createTtyRenderer(stream, talk);
    case 'plain':
      return (await import('./plain-renderer.js')).createPlainRenderer(stream, talk);
  }
}

/**
 * Which kind of progress to show. A bar needs a terminal that has columns (ora never ends without) and moves its
 * cursor: elsewhere plain lines stand in.
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

/** Every event as a JSON object on a line of its own; debug lines only when asked for. */
export function createJsonRenderer(stream: NodeJS.WritableStream, { debug }: Talk): Renderer {
  return {
    onEvent: (event) => {
      if (event.event !== 'debug' || debug) stream.write(jsonLine(event));
    },
    end: () => {},
  };
}

/** Shows no progress, but what the user should know of. */
function createWarningRenderer(stream: NodeJS.WritableStream, talk: Talk): Renderer {
  return {
    onEvent: (event) => {
      if (event.event === 'warning') stream.write(`${eventLine(event, talk)}\n`);
    },
    end: () => {},
  };
}
