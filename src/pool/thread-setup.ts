import type { Digest } from '../format/digest.js';
import type { RateLimit } from './rate-limit.js';
import type { BlockTagRows, ExtentRows } from './store-tasks.js';

/** What a thread is told once, when it is started. */

/** What a worker needs to know once: handed over as the pool's workerData. */
export interface WorkerSetup {
  readonly storeRoot: string;
  /** Nothing is written there. */
  readonly isReadOnly?: boolean;
  readonly counters: Uint32Array<SharedArrayBuffer>;
  /** What all threads together may receive. */
  readonly rateLimit?: RateLimit;
  /**
   * Of pools that write to a store whose disk has files that could go: 1 once they are gone. A thread that finds the disk full says so and
   * waits for that.
   */
  readonly spareRoom?: Int32Array<SharedArrayBuffer>;
  /** For pools whose tasks ask a registry. */
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

export interface NetworkSetup {
  /** Name of the BroadcastChannel on which the main thread answers. */
  readonly channel: string;
  /** Range requests in flight in one thread, which its HTTP connections are too. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  /** What a connection brings is written before more comes, so that it may read into one buffer again and again. */
  readonly reusesBuffers?: boolean;
  /** Where blobs are asked for, in this order; the first is where their URLs lead. */
  readonly endpoints: readonly EndpointSetup[];
  /** How a foreign blob is asked for where it lies. */
  readonly foreignTransport: Omit<TransportSetup, 'host' | 'certDir'>;
  /** Which endpoints lack which blobs; all threads add to it. */
  readonly endpointState: Uint32Array<SharedArrayBuffer>;
  /** How much each endpoint is asked, and what all waits together took; all threads add to them. */
  readonly limits: BigInt64Array<SharedArrayBuffer>;
  readonly waits: BigInt64Array<SharedArrayBuffer>;
  readonly userAgent: string;
  /** Blobs lie in files on this machine, but for foreign ones. */
  readonly isLocal?: true;
  /** Whether each request is to be told of. */
  readonly debug: boolean;
  /**
   * Value of the Authorization header at the first endpoint, when it asked for one, and from when on (Unix time) it is
   * to be renewed before it is used.
   */
  readonly authorization?: { readonly value: string; readonly expiresAtMs: number };
}

/** One place that has the image's blobs. */
interface EndpointSetup {
  readonly transport: TransportSetup;
  readonly repository: string;
}

/** How a registry's servers are reached. */
interface TransportSetup {
  readonly tlsVerify: boolean;
  /** `host[:port]` as references have it. */
  readonly host: string;
  readonly certDir?: string;
  /** The variables of the environment that concern the network, those with a proxy's password included. */
  readonly environment: Readonly<Record<string, string>>;
  readonly allowHttpStorage?: boolean | undefined;
}
