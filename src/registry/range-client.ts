import type { Limits, Wait, WaitBudget } from './backoff.js';
import { type Connections, createConnections } from './connections.js';
import { EndpointChoice, turnWords } from './endpoint-choice.js';
import type { FailedHost } from './network-error.js';
import { RangeTurns, type TurnLimits } from './range-turns.js';
import { type SharedTargets, Targets } from './targets.js';
import type { Transport } from './transport.js';

export interface RangeClientOptions {
  /** Connections to one origin at a time. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  /** See `ConnectionsOptions`. */
  readonly reusesBuffers?: boolean;
  /** Where a blob is asked for, in this order; the first is where its URL leads. */
  readonly endpoints: readonly RangeEndpoint[];
  /** How a foreign blob is asked for where it lies. */
  readonly foreignTransport: Omit<Transport, 'host' | 'certDir'>;
  /** Shared with other threads; see `createEndpointState`, `createLimits` with a row for each endpoint, `createWaitBudget`. */
  readonly endpointState: Uint32Array;
  readonly limits: Limits;
  readonly waits: WaitBudget;
  readonly userAgent?: string;
  /** How long ranges of a blob wait for each other; left out, as suits a registry that is near. */
  readonly turnLimits?: TurnLimits;
  /** Left out, this thread is the only one. */
  readonly sharedTargets?: SharedTargets;
}

/** One place that has an image's blobs. */
interface RangeEndpoint {
  readonly transport: Transport;
  readonly repository: string;
}

/** What a worker keeps between ranges: connections, which endpoints serve, known redirect targets. */
export interface RangeClient {
  readonly options: RangeClientOptions;
  /**
   * The connections for a blob at an endpoint, or, as `foreignHost`, elsewhere. Each endpoint, and each host
   * elsewhere, has certificates of its own.
   */
  connectionsTo(endpoint: number, blobUrl: string): Connections;
  readonly choice: EndpointChoice;
  readonly targets: Targets;
  readonly turns: RangeTurns;
  close(): Promise<void>;
}

/** A blob of a registry and what its manifest says of it. */
export interface BlobSource {
  /** `ORIGIN/v2/REPOSITORY/blobs/DIGEST`. */
  readonly url: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** Asked for without credentials: it is not the registry that has it. */
  readonly anonymous?: true;
}

/** How a range talks to the main thread. */
export interface RangeEvents {
  /** Body bytes of an endpoint's 200 or 206 answer; called once a chunk. */
  received(bytes: number, endpoint: number): void;
  /** A GET of the blob is about to be sent; requests that follow a redirect are not counted. */
  requested(): void;
  /** A line for the log about a GET that has ended. Left out, no line is made. */
  log?(line: string): void;
  /**
   * A network failure, of `failed`, with what helps against it. Resolves when it is time to ask again; rejects with the PullError
   * that ends the pull.
   */
  miss(message: string, failed?: FailedHost & { readonly hint?: string | undefined }): Promise<void>;
  /** An endpoint's Authorization value; with `stale` ('' for none), the value that was refused. */
  authorization(stale: string | undefined, endpoint: number): Promise<string | undefined>;
  /** `http://…` or `https://…` of an endpoint that is not the first. */
  originOf(endpoint: number): Promise<string>;
  /**
   * Bytes have been received, as `received` tells. A promise: nothing more may be read until it resolves. Left out, the rate
   * is not limited.
   */
  limit?(bytes: number): Promise<void> | undefined;
  /** Not asking until the returned function is called, as a server wants it; `told` where nobody has heard of that yet. */
  pause(told: Wait | undefined): () => void;
}

export interface RangeJob {
  readonly blob: BlobSource;
  /** Half-open, inside the blob. */
  readonly start: number;
  readonly end: number;
  /** For a blob whose size nobody knows: called with what each answer says of it, instead of comparing that with `blob.sizeBytes`. */
  onSize?(sizeBytes: number): void;
  /**
   * The caller can do with the whole blob instead: a server that gives no ranges ends this one with `unsupported`. The first whole
   * response for the blob goes to what this returns, if anything, before; others are closed at their heads. Left out, bytes before the
   * range are skipped.
   */
  fullBlobInstead?(): RangeJob['onBytes'] | undefined;
  /** Lets the range be ended before its end. Only a 206 is: the rest of another response could not be asked for alone. */
  readonly stop?: RangeStop;
  /**
   * Takes the bytes in order, each once. While a promise is open nothing more is read from the network; what it
   * throws or rejects with ends the range and is thrown on.
   */
  onBytes(chunk: Buffer): void | Promise<void>;
  readonly events: RangeEvents;
}

export interface RangeTotals {
  /** GETs sent, retries included, redirect hops not. */
  readonly requests: number;
  /** Body bytes of 200 and 206 answers, skipped ones included. */
  readonly receivedBytes: number;
}

/** Connections and memory for the ranges of one worker: HTTP/1.1, kept alive, one request a connection at a time. */
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
    targets: new Targets(options.sharedTargets),
    turns: new RangeTurns(turnWords(options.endpointState), options.turnLimits),
    close: async () => {
      await Promise.all([...connections, ...elsewhere.values()].map((each) => each.close()));
    },
  };
}

/** Lets somebody end a range before its end, while its bytes come. Its connection is closed, and the range goes on over another up to `end`. */
export class RangeStop {
  /** Where the range ended, or will end, because it was asked to; undefined when it was not. */
  end: number | undefined;
  readonly #endFor: (next: number) => number;
  #abort: (() => void) | undefined;

  /** `endFor`: where the range may end when all bytes before `next` have come, at or behind that. */
  constructor(endFor: (next: number) => number = (next) => next) {
    this.#endFor = endFor;
  }

  /** Ends the range, if bytes are coming that can be asked for in parts. */
  ask(): void {
    this.#abort?.();
  }

  /** `abort` ends the request that is in flight; undefined when none is. */
  inFlight(abort: (() => void) | undefined): void {
    this.#abort = abort;
  }

  /** The request was ended by `ask`. Returns where the range ends now. */
  ended(next: number, end: number): number {
    this.end = Math.min(end, Math.max(next, this.#endFor(next)));
    return this.end;
  }
}
