import type { CopyResult } from '../../api/copy.js';
import type { ExportEvent } from '../../api/export.js';
import { formatBytes, formatCount, formatDuration, formatRate } from '../../api/figures.js';
import type { PullEvent, PullResult } from '../../api/pull.js';
import { jsonLine, printable } from '../format-text.js';
import type { OptionValues } from '../options.js';

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
  switch (progressKind(options, stream.isTTY === true && stream.columns > 0, process.env)) {
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
 * Which kind of progress to show. Bars need a terminal that moves its cursor and has columns (ora
 * loops forever without); elsewhere, and where the environment says that nobody watches or that
 * output is to be plain, lines are printed.
 */
export function progressKind(
  { progress = 'auto', quiet = false }: OptionValues,
  isTerminal: boolean,
  env: Readonly<Record<string, string | undefined>>,
): 'tty' | 'plain' | 'json' | 'none' {
  if (quiet) return 'none';
  if (progress !== 'auto' && progress !== 'tty') return progress;
  if (!isTerminal || env['TERM'] === 'dumb') return 'plain';
  const isPlain = isSet(env['CI']) || (env['NO_COLOR'] ?? '') !== '';
  return progress === 'auto' && isPlain ? 'plain' : 'tty';
}

/** `CI=false` is what some set to be treated as a person. */
function isSet(value: string | undefined): boolean {
  return value !== undefined && !['', '0', 'false'].includes(value.toLowerCase());
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

function createWarningRenderer(stream: NodeJS.WritableStream, display: DisplayOptions): Renderer {
  return {
    onEvent: (event) => {
      if (event.event === 'warning') stream.write(`${eventLine(event, display)}\n`);
    },
    end: () => {},
  };
}

/** What a display shows besides progress. */
export interface DisplayOptions {
  readonly verbose: boolean;
  readonly debug: boolean;
  /** Where content is that need not be fetched, `in the store` by default. */
  readonly cachedWhere?: string;
}

/** The line that an event adds to a display of progress; undefined for none. */
export function eventLine(event: ShownEvent, { verbose, debug }: DisplayOptions): string | undefined {
  const line = rawLine(event, verbose || debug, debug);
  return line === undefined ? undefined : printable(line);
}

function rawLine(event: ShownEvent, verbose: boolean, debug: boolean): string | undefined {
  switch (event.event) {
    case 'warning':
      return `warning: ${event.message}`;
    case 'resolved':
      return verbose ? chosenLine(event) : undefined;
    case 'planned':
      return foundLine(event);
    case 'layer':
      return verbose ? `layer ${event.done} of ${event.of}: ${event.diffId}` : undefined;
    case 'waiting':
      return `${event.host} asks to wait: ${formatDuration(event.waitMs)}`;
    case 'waiting-for-layers':
      return verbose ? `waiting for ${formatCount(event.layers, 'layer')} of another process` : undefined;
    case 'miss':
      return verbose ? `network failure: ${event.message}` : undefined;
    case 'debug':
      return debug ? event.line : undefined;
    default:
      return undefined;
  }
}

/** What a pull or a copy did, without its image: in several lengths, longest first. */
export function summaryTexts(result: PullResult | CopyResult): readonly [string, ...string[]] {
  const { fetchedBytes, reusedBytes, resumedBytes, requests, misses, durationMs } = result;
  const short = fetchedBytes === 0 ? 'nothing to fetch' : `fetched ${formatBytes(fetchedBytes)}`;
  const fetched = fetchedBytes === 0 ? short : `${short} in ${formatCount(requests, 'request')}`;
  const rate =
    durationMs > 0 && fetchedBytes > 0 ? `, ${formatRate((fetchedBytes / durationMs) * 1000)}` : '';
  const parts = [
    fetched,
    ...(reusedBytes > 0 ? [reuse(result)] : []),
    ...(resumedBytes > 0 ? [`resumed ${formatBytes(resumedBytes)}`] : []),
    ...(misses > 0 ? [formatCount(misses, 'network failure')] : []),
  ];
  const verified = `verified in ${formatDuration(durationMs)}`;
  const [, ...others] = parts;
  return [
    `${parts.join(', ')}; ${verified}${rate}`,
    `${[short, ...others].join(', ')}; ${verified}`,
    `${short}; ${verified}`,
    verified,
  ];
}

/** A line on what a pull or a copy did. */
export function summaryLine(result: PullResult | CopyResult): string {
  return `${result.image}: ${summaryTexts(result)[0]}`;
}

function reuse(result: PullResult | CopyResult): string {
  const reused = formatBytes(result.reusedBytes);
  if (!('layers' in result)) return `${reused} were there`;
  return `reused ${reused} of ${formatBytes(result.layers.reduce((sum, layer) => sum + layer.tarBytes, 0))}`;
}

function foundLine(event: PullEvent & { event: 'planned' }): string | undefined {
  const { resumeBytes } = event;
  return resumeBytes > 0 ? `found ${formatBytes(resumeBytes)} of an interrupted pull` : undefined;
}

function chosenLine(event: PullEvent & { event: 'resolved' }): string | undefined {
  const { indexDigest, digest, platform } = event;
  return indexDigest === undefined
    ? undefined
    : `chose ${digest} (${platform}) from the index ${indexDigest}`;
}
