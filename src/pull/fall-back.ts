import { type ErrorCode, PullError } from '../format/error.js';
import type { PullContext } from './context.js';
import type { WantedLayer } from './layer.js';

/**
 * What chunked metadata can be guilty of, under a blob that is good all the same: it is malformed, its digests are not
 * those of the bytes, or it asks for more than we do. Everything else a second way would meet again.
 */
const CODES: ReadonlySet<ErrorCode> = new Set(['metadata-malformed', 'digest-mismatch', 'unsupported']);

/** Whether what failed so may still be had by pulling whole layers. */
export function mayFallBack(error: unknown): error is PullError {
  return error instanceof PullError && CODES.has(error.code);
}

/** Whether a chunked layer that failed so may still be pulled as a whole; if so, the user is told. */
export function warnOfFallback(context: PullContext, layer: WantedLayer, error: unknown): boolean {
  if (!mayFallBack(error)) return false;
  const message = `layer ${layer.blob.digest}: ${error.message}; it is pulled as a whole`;
  context.emit({ event: 'warning', message });
  return true;
}
