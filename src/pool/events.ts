import type { Failure } from '../format/error.js';

/** What threads say to each other while tasks run. */

/** How long whoever had a miss waits before it asks again, in milliseconds; the main thread may end it sooner. */
export const RETRY_WAIT_MS = 1000;

/** From a worker while a task runs. */
export type WorkerEvent =
  /** `host`: whom it is about; `sign`: that it is alive all the same, or that a timeout ended the request; `hint`: what helps. */
  | {
      readonly event: 'miss';
      readonly message: string;
      readonly hint?: string | undefined;
      readonly host?: string;
      readonly sign?: 'alive' | 'silent' | undefined;
    }
  /** One more, or one less, request loop is asking: a wait that the server asked for is not asking. */
  | { readonly event: 'asking'; readonly change: 1 | -1 }
  /** A server told a request to wait. */
  | {
      readonly event: 'throttled';
      readonly host: string;
      readonly waitMs: number;
      readonly words?: string | undefined;
    }
  | { readonly event: 'authorization'; readonly endpoint: number; readonly stale: string }
  /** A signed URL that a blob's URL led to is refused, or none is known; asked of the main thread by a worker's thread. */
  | {
      readonly event: 'target-expired';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    }
  /** The thread that had leave to ask the registry has found a new one, or none. */
  | { readonly event: 'target-renewed'; readonly blobUrl: string; readonly target: string | undefined }
  /** Where a blob's URL led is broken. */
  | { readonly event: 'target-failed'; readonly blobUrl: string; readonly target: string }
  /** The disk of the store is full. The thread waits at `WorkerSetup.spareRoom`. */
  | { readonly event: 'store-full' }
  | { readonly event: 'request'; readonly line: string };

/** From the main thread to all workers, on the BroadcastChannel: the answers to `authorization` and `target-expired`. */
export type MainMessage =
  | {
      readonly message: 'authorization';
      readonly endpoint: number;
      readonly stale: string;
      readonly value: string | undefined;
      readonly expiresAtMs: number;
      /** `http://…` or `https://…`, as asking the endpoint showed. */
      readonly origin: string;
    }
  | {
      readonly message: 'authorization-failed';
      readonly endpoint: number;
      readonly stale: string;
      readonly failure: Failure;
    }
  /** A thread has leave to ask the registry where a blob is. */
  | { readonly message: 'renew-target'; readonly blobUrl: string; readonly thread: number }
  /** Where a blob is now, for one thread that asked; undefined when the registry was asked in vain. */
  | {
      readonly message: 'target';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    };
