import type { OptionValues } from '../options.js';
import type { Talk } from './event-line.js';
import type { Renderer } from './renderer.js';

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
