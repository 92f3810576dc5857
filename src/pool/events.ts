import type { Failure } from '../format/error.js';

/** Messages between threads while tasks run. */

/** The wait between a miss and the next request; the main thread may end it sooner. */
export const RETRY_WAIT_MS = 1000;

/** From a worker while a task runs. */
export type WorkerEvent =
  /**
   * A request failed. `host` is the server, `sign` whether it is alive nevertheless or a timeout
   * ended the request, `hint` what the user can do.
   */
  | {
      readonly event: 'miss';
      readonly message: string;
      readonly hint?: string | undefined;
      readonly host?: string;
      readonly sign?: 'alive' | 'silent' | undefined;
    }
  /**
   * A request loop has started, or stopped, making requests: a wait that the server requested
   * counts as stopped.
   */
  | { readonly event: 'asking'; readonly change: 1 | -1 }
  /** A server requested a wait. */
  | {
      readonly event: 'throttled';
      readonly host: string;
      readonly waitMs: number;
      readonly words?: string | undefined;
    }
  | { readonly event: 'authorization'; readonly endpoint: number; readonly stale: string }
  /** The target of a blob's redirect was refused, or is unknown: the thread requests a new one. */
  | {
      readonly event: 'target-expired';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    }
  /** The thread that received `renew-target` has found a new target, or none. */
  | { readonly event: 'target-renewed'; readonly blobUrl: string; readonly target: string | undefined }
  /** The target of a blob's redirect does not work. */
  | { readonly event: 'target-failed'; readonly blobUrl: string; readonly target: string }
  /** The disk of the store is full. The thread waits at `WorkerSetup.spareRoom`. */
  | { readonly event: 'store-full' }
  | { readonly event: 'request'; readonly line: string };

/**
 * From the main thread to all workers, on the BroadcastChannel: the answers to `authorization` and
 * `target-expired`.
 */
export type MainMessage =
  | {
      readonly message: 'authorization';
      readonly endpoint: number;
      readonly stale: string;
      readonly value: string | undefined;
      readonly expiresAtMs: number;
      /** `http://…` or `https://…`, whichever works. */
      readonly origin: string;
    }
  | {
      readonly message: 'authorization-failed';
      readonly endpoint: number;
      readonly stale: string;
      readonly failure: Failure;
    }
  /** One thread is to request the target of a blob from the registry. */
  | { readonly message: 'renew-target'; readonly blobUrl: string; readonly thread: number }
  /** The target of a blob for one thread that requested it; undefined if none was found. */
  | {
      readonly message: 'target';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    };
