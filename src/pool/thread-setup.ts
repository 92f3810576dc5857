import type { Digest } from '../format/digest.js';
import type { RangeClientOptions } from '../registry/range-client.js';
import type { ExtentRows } from '../store/extents.js';
import type { BlockTagRows } from './check-tasks.js';
import type { RateLimit } from './rate-limit.js';

/** What a thread receives when it is started: Node's workerData. */
export interface WorkerSetup {
  readonly storeRoot: string;
  /** Whether the store must not be written to. */
  readonly isReadOnly?: boolean;
  readonly counters: Uint32Array<SharedArrayBuffer>;
  /** Limits what all threads together receive. */
  readonly rateLimit?: RateLimit;
  /**
   * For pools that write to a store whose disk has files that the main thread can delete: 1 once
   * they are deleted. A thread that finds the disk full reports it and waits for that.
   */
  readonly spareRoom?: Int32Array<SharedArrayBuffer>;
  /** For pools that fetch. */
  readonly network?: NetworkSetup;
  /** For pools that export a file system: the layers of the image, lowest first. */
  readonly layers?: readonly ExportedLayer[];
}

/** A layer that several threads read. */
export interface ExportedLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tags: BlockTagRows;
}

/** How a thread requests blobs. */
export interface NetworkSetup extends Omit<RangeClientOptions, 'sharedTargets' | 'turnLimits'> {
  /** Name of the BroadcastChannel on which the main thread answers. */
  readonly channel: string;
  /** Whether blobs are files on this machine, except for foreign ones. */
  readonly isLocal?: true;
  /** Whether to report each request. */
  readonly debug: boolean;
  /**
   * Value of the Authorization header at the first endpoint, if it requires one, and the Unix time
   * from which on it is renewed before use.
   */
  readonly authorization?: { readonly value: string; readonly expiresAtMs: number };
}
