import { PullError } from '../format/error.js';

/**
 * The end of a pull before its time: remembers the first reason and runs what must be stopped, at once.
 * What fails afterwards (tasks of threads that are being killed) fails with that first reason.
 */
export class Stop {
  #reason: PullError | undefined;
  readonly #actions: Array<() => void> = [];
  readonly #stopped: Promise<never>;
  #reject!: (reason: PullError) => void;

  constructor() {
    this.#stopped = new Promise((_, reject) => {
      this.#reject = reject;
    });
    this.#stopped.catch(() => {});
  }

  get reason(): PullError | undefined {
    return this.#reason;
  }

  /** Ends the pull; only the first call counts. */
  now(reason: PullError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#reject(reason);
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
  async guard<T>(promise: Promise<T>): Promise<T> {
    try {
      return await Promise.race([promise, this.#stopped]);
    } catch (error) {
      throw this.#reason ?? error;
    }
  }
}
