import { PullError } from './error.js';

/**
 * Returns the error for work that a signal has ended: the reason of the abort if it is a PullError,
 * otherwise `interrupted` with this message and the reason as its cause.
 */
export function abortError(signal: AbortSignal, message: string): PullError {
  const reason: unknown = signal.reason;
  return reason instanceof PullError ? reason : new PullError('interrupted', message, { cause: reason });
}

/** @throws PullError as `abortError`, if the signal has been aborted */
export function throwIfAborted(signal: AbortSignal | undefined, message: string): void {
  if (signal?.aborted) throw abortError(signal, message);
}

/** What to do when a signal aborts. */
const actions = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Runs `action` when the signal aborts, immediately if it already has. Adds one listener to a
 * signal for all actions: Node warns of a leak at the eleventh.
 * @returns a function that removes the action
 */
export function onAbort(signal: AbortSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  if (signal.aborted) {
    action();
    return () => {};
  }
  // An action of its own, as the caller may add the same function twice.
  const own = () => action();
  const known = actions.get(signal);
  const all = known ?? new Set();
  all.add(own);
  const listener = () => {
    actions.delete(signal);
    for (const each of all) each();
  };
  if (known === undefined) {
    actions.set(signal, all);
    signal.addEventListener('abort', listener, { once: true });
  }
  return () => void all.delete(own);
}

/** A signal of its own for work that several signals may end. */
export interface LinkedSignal {
  readonly signal: AbortSignal;
  /** Aborts this signal alone. */
  abort(reason?: unknown): void;
  /** Stops following the others; to be called when the work is over. */
  unlink(): void;
}

/**
 * Returns a signal that aborts with the first of others. Unlike `AbortSignal.any`, it leaves nothing
 * behind at signals that live on.
 */
export function linkSignals(...others: readonly (AbortSignal | undefined)[]): LinkedSignal {
  const controller = new AbortController();
  const removals = others.map((other) => onAbort(other, () => controller.abort(other!.reason)));
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    unlink: () => {
      for (const remove of removals) remove();
    },
  };
}
