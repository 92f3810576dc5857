import type { Failure } from '../api/errors.js';
import { jsonLine, printable } from './format-text.js';

/**
 * Wrong usage: like a PullError of code `option-malformed`, whose class is loaded with the engine,
 * which would triple the time that a misspelled option takes.
 */
export class UsageError extends Error {
  readonly code = 'option-malformed';
  readonly exitCode = 2;
  readonly hint: string;
  image: string | undefined;

  constructor(message: string, hint: string) {
    super(message);
    this.name = 'UsageError';
    this.hint = hint;
  }
}

/** A failure and the exit code that belongs to it. */
export interface CommandFailure extends Failure {
  readonly exitCode: number;
}

/**
 * The failure that a thrown value stands for. Loads the engine's error class, except for wrong
 * usage.
 */
export async function failureOf(error: unknown): Promise<CommandFailure> {
  const stack = error instanceof Error ? error.stack : undefined;
  if (isUsageError(error)) {
    const { code, message, hint, exitCode, image } = error;
    return { code, message, hint, exitCode, ...(image && { image }), ...(stack && { stack }) };
  }
  const { PullError, toFailure } = await import('../api/errors.js');
  return { ...toFailure(error), exitCode: error instanceof PullError ? error.exitCode : 1 };
}

/**
 * Runs `work`, whose errors are about an image, and name it unless they name one already.
 * @throws what `work` throws
 */
export async function aboutImage<T>(image: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { PullError } = await import('../api/errors.js');
    if (isUsageError(error) || error instanceof PullError) error.image ??= image;
    throw error;
  }
}

/**
 * By name, as the bundle has the class twice: with the parser of the command line and with the
 * commands.
 */
function isUsageError(error: unknown): error is UsageError {
  return error instanceof Error && error.name === 'UsageError';
}

/**
 * Prints a failure: with `json` as an object on stdout, else its message, layer and hint on stderr,
 * and with `namesImage` the image before them.
 */
export function reportFailure(
  failure: CommandFailure,
  how: { json: boolean; debug: boolean; namesImage?: boolean },
): void {
  const { code, message, hint, layer, image, stack } = failure;
  if (how.json) {
    const about = { ...(image && { image }), ...(layer && { layer }) };
    process.stdout.write(jsonLine({ error: { code, message, hint, ...about } }));
  } else {
    const which = how.namesImage === true && image && !message.includes(image) ? `${image}: ` : '';
    const where = layer === undefined || message.includes(layer) ? '' : ` (layer ${layer})`;
    process.stderr.write(`zpull: ${printable(which + message + where)}\n`);
    process.stderr.write(`hint: ${printable(hint)}\n`);
  }
  if (how.debug && stack !== undefined) {
    process.stderr.write(`${stack.split('\n').map(printable).join('\n')}\n`);
  }
}
