import type { Digest } from '../format/digest.js';
import type { Limits, Wait, WaitBudget } from './backoff.js';
import { type Connections, createConnections } from './connections.js';
import { EndpointChoice, RangeTurns, type TurnLimits } from './endpoint-state.js';
import type { FailedHost } from './network-error.js';
import { RedirectTargets, type SharedTargets } from './redirect-targets.js';
import type { Transport } from './transport.js';

export interface RangeClientOptions {
  /** Connections to one origin at a time. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  /** See `ConnectionsOptions`. */
  readonly reusesBuffers?: boolean;
  /** Where a blob is requested, in this order; its URL leads to the first. */
  readonly endpoints: readonly RangeEndpoint[];
  /** For foreign blobs, which are fetched from their own hosts. */
  readonly foreignTransport: Omit<Transport, 'host' | 'certDir'>;
  /** Shared with other threads; `limits` has a row for each endpoint. */
  readonly endpointState: Uint32Array;
  readonly limits: Limits;
  readonly waits: WaitBudget;
  readonly userAgent?: string;
  /** How long ranges of a blob wait for each other; left out, as suits a nearby registry. */
  readonly turnLimits?: TurnLimits;
  /** Left out, this thread is the only one. */
  readonly sharedTargets?: SharedTargets;
}

/** A mirror or registry with an image's blobs. */
export interface RangeEndpoint {
  readonly transport: Transport;
  readonly repository: string;
}

/**
 * What the ranges of a worker share: connections, the choice of endpoints, cached redirect targets.
 */
export interface RangeClient {
  readonly options: RangeClientOptions;
  /**
   * The connections to an endpoint, or to the host of a foreign blob (see `foreignHost`). Each
   * endpoint and each such host has its own certificates.
   */
  connectionsTo(endpoint: number, blobUrl: string): Connections;
  readonly choice: EndpointChoice;
  readonly targets: RedirectTargets;
  readonly turns: RangeTurns;
  close(): Promise<void>;
}

/** A blob of a registry, with the size that its manifest states. */
export interface BlobSource {
  /** `ORIGIN/v2/REPOSITORY/blobs/DIGEST`. */
  readonly url: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Requested without credentials: it is not from the registry. */
  readonly anonymous?: true;
}

/** How a range reports to the main thread. */
export interface RangeEvents {
  /** Body bytes of an endpoint's 200 or 206; called once a chunk. */
  received(bytes: number, endpoint: number): void;
  /** A GET of the blob is about to be sent; requests that follow a redirect are not counted. */
  requested(): void;
  /** A line for the log about a GET that has ended. Left out, no line is made. */
  log?(line: string): void;
  /**
   * A network failure of `failed`, with a hint. Resolves when it is time for a retry; rejects with
   * the PullError that ends the pull.
   */
  miss(message: string, failed?: FailedHost & { readonly hint?: string | undefined }): Promise<void>;
  /** An endpoint's Authorization value; with `stale` ('' for none), the value that was refused. */
  authorization(stale: string | undefined, endpoint: number): Promise<string | undefined>;
  /** `http://…` or `https://…` of an endpoint that is not the first. */
  originOf(endpoint: number): Promise<string>;
  /**
   * Called after `received`. When it returns a promise, nothing more is read until that resolves.
   * Left out, the rate is not limited.
   */
  limit?(bytes: number): Promise<void> | undefined;
  /** The range waits until the returned function is called; `unreported` if that is news. */
  pause(unreported: Wait | undefined): () => void;
}

export interface RangeJob {
  readonly blob: BlobSource;
  /** Half-open, inside the blob. */
  readonly start: number;
  readonly end: number;
  /**
   * For a blob whose manifest states no size: called with the size that each response states, which
   * is not compared with `blob.sizeBytes` then.
   */
  onSize?(sizeBytes: number): void;
  /**
   * The caller can use the full blob instead: a server that ignores ranges ends this one with
   * `unsupported`. The first full response for the blob goes to the consumer that this returns, if
   * any; others are closed at their heads. Left out, bytes before the range are skipped.
   */
  fullBlobInstead?(): RangeJob['onBytes'] | undefined;
  /** Ends the range early, if its response is a 206. */
  readonly stop?: RangeStop;
  /**
   * Receives the bytes in order, each once. While a promise is open nothing more is read from the
   * network; an error that it throws or rejects with ends the range and is rethrown.
   */
  onBytes(chunk: Buffer): void | Promise<void>;
  readonly events: RangeEvents;
}

/** Ends a range early: its connection is closed, and another brings the rest. */
export interface RangeStop {
  /**
   * `abort` ends the request in flight, if its response is one whose remaining bytes can be
   * requested alone; undefined when there is none.
   */
  inFlight(abort: (() => void) | undefined): void;
  /** A request was aborted before byte `next`. Returns where the range to `end` ends now. */
  ended(next: number, end: number): number;
}

export interface RangeTotals {
  /** GETs sent, retries included, redirect hops not. */
  readonly requests: number;
  /** Body bytes of 200 and 206 responses, skipped ones included. */
  readonly receivedBytes: number;
}

/** Connections and state for the ranges of one worker: HTTP/1.1, kept alive, not pipelined. */
export function createRangeClient(options: RangeClientOptions): RangeClient {
  const connections = options.endpoints.map(({ transport }) => createConnections({ ...options, transport }));
  const elsewhere = new Map<string, Connections>();
  return {
    options,
    connectionsTo(endpoint, blobUrl) {
      if (endpoint >= 0) return connections[endpoint]!;
      const { host } = new URL(blobUrl);
      const known =
        elsewhere.get(host) ??
        createConnections({ ...options, transport: { ...options.foreignTransport, host } });
      elsewhere.set(host, known);
      return known;
    },
    choice: new EndpointChoice(options.endpoints.length, options.endpointState, options.limits),
    targets: new RedirectTargets(options.sharedTargets),
    turns: new RangeTurns(options.endpointState, options.turnLimits),
    close: async () => {
      await Promise.all([...connections, ...elsewhere.values()].map((each) => each.close()));
    },
  };
}
