import { abortError, onAbort } from '../format/abort.js';
import type { Digest } from '../format/digest.js';
import type { LayerFollower } from '../pool/messages.js';
import type { StageRecorder } from '../pool/stages.js';
import type { TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import type { Concurrency } from '../registry/backoff.js';
import type { EndpointChoice } from '../registry/endpoint-state.js';
import type { PackId, StorePaths } from '../store/paths.js';
import type { DecodedAllowance, MetadataBudget } from './budgets.js';
import type { LayerBoard } from './layer-progress.js';
import type { PullEvent } from './pull-events.js';
import type { Settings } from './pull-options.js';
import type { KarmaRetryPolicy } from './retry-policy.js';

/** What the steps of one pull or copy share. */
export interface PullContext {
  readonly settings: Settings;
  readonly paths: StorePaths;
  readonly stop: Stop;
  readonly retries: KarmaRetryPolicy;
  readonly concurrency: Concurrency;
  /** Chooses endpoints, and knows which blobs each of them lacks. */
  readonly endpoints: EndpointChoice;
  /** Memory for decoded metadata. */
  readonly metadata: MetadataBudget;
  readonly emit: (event: PullEvent) => void;
  /**
   * Adds bytes to the total of a layer to receive, after a change of the plan; negative to subtract.
   */
  readonly addTotal: (bytes: number, diffId: Digest) => void;
  /** Where each layer is, for a display. */
  readonly layers: LayerBoard;
  /** Threads that read metadata, look up, write inline bytes and hash. */
  readonly support: WorkerPool;
  /**
   * Starts threads that fetch ranges. With `mayShare`, up to `threads` support threads are among
   * them.
   */
  readonly startFetchers: (threads: number, mayShare: boolean) => Promise<TaskRunner>;
  /** Limits what its layers decode to. */
  readonly decoded: DecodedAllowance;
  /** Packs without use after the pull; deleted when its threads have ended. */
  readonly scrap: Set<PackId>;
  /** Packs that contain only a layer that failed for good. */
  readonly failed: Set<PackId>;
  /** Packs that the threads of this pull write; sealed at its end. */
  readonly packs: Set<PackId>;
  readonly stages: StageRecorder;
  /** Uses layers while they arrive. */
  readonly follower?: LayerFollower | undefined;
}

/**
 * Ends a pull early. Keeps the first reason, with which everything that fails afterwards fails
 * (tasks of threads that are being ended, for example), and runs the registered actions at once.
 */
export class Stop {
  #reason: Error | undefined;
  readonly #actions: Array<() => void> = [];
  /**
   * Reject the guarded promises that have not settled. Promise.race with one shared promise would
   * keep 650 bytes a race until that promise settles.
   */
  readonly #pending = new Set<(error: unknown) => void>();

  /** A PullError, or the error of a callback of the library's user. */
  get reason(): Error | undefined {
    return this.#reason;
  }

  /** Ends the pull. Only the first call has an effect. */
  now(reason: Error): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    for (const fail of this.#pending) fail(reason);
    for (const action of this.#actions) action();
  }

  /**
   * Ends the pull when the signal aborts, with an error as `abortError`.
   * @returns a function that removes the listener
   */
  follow(signal: AbortSignal | undefined, message: string): () => void {
    return onAbort(signal, () => this.now(abortError(signal!, message)));
  }

  /** Runs `action` when the pull stops, immediately if it already has. */
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
