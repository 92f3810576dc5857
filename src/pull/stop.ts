import { PullError } from '../format/error.js';

/**
 * The end of a pull before its time: remembers the first reason and runs what must be stopped, at once.
 * What fails afterwards (tasks of threads that are being killed) fails with that first reason.
 */
export class Stop {
  #reason: Error | undefined;
  readonly #actions: Array<() => void> = [];
  /**
   * Rejects each guarded promise that has not settled yet. Promise.race with one shared promise would keep 650 bytes a race until
   * that promise settles.
   */
  readonly #pending = new Set<(error: unknown) => void>();

  /** A PullError, or what a callback of the library's user threw. */
  get reason(): Error | undefined {
    return this.#reason;
  }

  /** Ends the pull; only the first call counts. */
  now(reason: Error): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    for (const fail of this.#pending) fail(reason);
    for (const action of this.#actions) action();
  }

  /**
   * Ends the pull when the signal is aborted: with its reason if that is a PullError, else as `interrupted` with this message.
   * @returns ends that again
   */
  follow(signal: AbortSignal | undefined, message: string): () => void {
    const aborted = () => {
      const reason: unknown = signal?.reason;
      this.now(reason instanceof PullError ? reason : new PullError('interrupted', message));
    };
    if (signal?.aborted) aborted();
    else signal?.addEventListener('abort', aborted);
    return () => signal?.removeEventListener('abort', aborted);
  }

  /** Something to do when the pull stops; done immediately when it already has. */
  onStop(action: () => void): void {
    if (this.#reason === undefined) this.#actions.push(action);
    else action();
  }

  /** The value of `promise`, or the reason of the stop, whichever comes first. */
  guard<T>(promise: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const fail = (error: unknown) => {
        this.#pending.delete(fail);
        reject(this.#reason ?? error);
      };
      promise.then((value) => {
        this.#pending.delete(fail);
        resolve(value);
      }, fail);
      if (this.#reason === undefined) this.#pending.add(fail);
      else fail(this.#reason);
    });
  }
}
