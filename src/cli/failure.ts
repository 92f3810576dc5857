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
    const { code, message, hint, exitCode } = error;
    return { code, message, hint, exitCode, ...(stack && { stack }) };
  }
  const { PullError, toFailure } = await import('../api/errors.js');
  return { ...toFailure(error), exitCode: error instanceof PullError ? error.exitCode : 1 };
}

/**
 * By name, as the bundle has the class twice: with the parser of the command line and with the
 * commands.
 */
function isUsageError(error: unknown): error is UsageError {
  return error instanceof Error && error.name === 'UsageError';
}

/**
 * Prints a failure: with `json` as an object on stdout, else its message, layer and hint on stderr.
 */
export function reportFailure(failure: CommandFailure, how: { json: boolean; debug: boolean }): void {
  const { code, message, hint, layer, stack } = failure;
  if (how.json) {
    process.stdout.write(jsonLine({ error: { code, message, hint, ...(layer && { layer }) } }));
  } else {
    const where = layer === undefined || message.includes(layer) ? '' : ` (layer ${layer})`;
    process.stderr.write(`zpull: ${printable(message + where)}\n`);
    process.stderr.write(`hint: ${printable(hint)}\n`);
  }
  if (how.debug && stack !== undefined) {
    process.stderr.write(`${stack.split('\n').map(printable).join('\n')}\n`);
  }
}
