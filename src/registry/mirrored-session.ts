import type { Digest } from '../format/digest.js';
import { type Failure, fromFailure, PullError } from '../format/error.js';
import { createWaitBudget, type RetryPolicy } from './backoff.js';
import type { Credentials } from './credentials.js';
import type { SessionOptions } from './exchange.js';
import type { RangeEndpoint } from './range-client.js';
import type { Endpoint } from './registries-conf.js';
import { createRegistrySession, type RegistrySession } from './session.js';
import type { Transport } from './transport.js';

/** What a worker's request to an endpoint needs besides. */
interface Access {
  /** `http://…` or `https://…`, as the first request to it found out. */
  readonly origin: string;
  /** The value of the Authorization header, and when (Unix time) it is to be renewed. */
  readonly value: string | undefined;
  readonly expiresAtMs: number;
}

/** An image's repository at all its endpoints, as one session. */
export interface MirroredSession
  extends Omit<RegistrySession, 'origin' | 'authorization' | 'authorizationExpiresAtMs'> {
  /** In the order for blobs: first the one that had the manifest, that of `blobUrl`. */
  readonly endpoints: readonly RangeEndpoint[];
  /**
   * To an endpoint by its index in `endpoints`; `stale` as `RegistrySession.authorization` has it.
   */
  access(endpoint: number, stale?: string): Promise<Access>;
}

interface MirroredOptions extends Omit<SessionOptions, 'host' | 'repository' | 'credentials'> {
  /** At least one; the last is the image's own registry. */
  readonly endpoints: readonly Endpoint[];
  /** `isOwn`: the endpoint is on the registry's own host and may see its credentials. */
  credentialsFor(endpoint: Endpoint, isOwn: boolean): Credentials;
}

/**
 * A session at several endpoints: a request goes to the next one when an endpoint refuses, fails or
 * answers wrongly, and only the last one's failures are misses. Every endpoint has its own token
 * and certificates.
 */
export function createMirroredSession(options: MirroredOptions): MirroredSession {
  const { endpoints, debug } = options;
  const last = endpoints.length - 1;
  const made = endpoints.map((endpoint) => createEndpoint(options, endpoint));
  let first = 0;
  const inOrder = () => [...made.slice(first), ...made.slice(0, first)];

  async function tryEach<T>(request: (session: RegistrySession) => Promise<T>): Promise<T> {
    for (let i = first; ; i++) {
      try {
        const result = await request(made[i]!.session);
        first = i;
        return result;
      } catch (error) {
        skip(i, error);
      }
    }
  }

  /**
   * An endpoint that states no digest may have the tag all the same: a GET still goes there first.
   */
  async function headEach(tag: string): Promise<Digest | undefined> {
    for (let i = first; ; i++) {
      try {
        const digest = await made[i]!.session.headManifest(tag);
        if (digest !== undefined || i === last) return digest;
      } catch (error) {
        skip(i, error);
        if (first === i) first = i + 1;
      }
    }
  }

  function skip(i: number, error: unknown): void {
    if (i === last || !(error instanceof PullError)) throw error;
    debug?.(`${error.message}; going on with ${endpoints[i + 1]!.host}`);
  }

  return {
    get endpoints() {
      return inOrder().map(({ target }) => target);
    },
    getManifest: (reference) => tryEach((session) => session.getManifest(reference)),
    headManifest: headEach,
    // A mirror lists what it has.
    getTags: () => made[last]!.session.getTags(),
    getBlob: (digest, sizeBytes) => tryEach((session) => session.getBlob(digest, sizeBytes)),
    blobUrl: (digest) => made[first]!.session.blobUrl(digest),
    async access(endpoint, stale) {
      const { session } = inOrder()[endpoint]!;
      const value = await session.authorization(stale);
      return { origin: session.origin, value, expiresAtMs: session.authorizationExpiresAtMs };
    },
    open: () => tryEach((session) => session.open()),
    disconnect() {
      for (const { session } of made) session.disconnect();
    },
    close() {
      for (const { session } of made) session.close();
    },
  };
}

interface CreatedEndpoint {
  readonly session: RegistrySession;
  readonly target: RangeEndpoint;
}

function createEndpoint(options: MirroredOptions, endpoint: Endpoint): CreatedEndpoint {
  const { certDir, environment, retryPolicy } = options;
  const { host, repository, insecure } = endpoint;
  const own = options.endpoints.at(-1)!;
  const transport: Transport = {
    host,
    // An insecure endpoint may have any certificate, and its storage may use http.
    tlsVerify: options.tlsVerify && !insecure,
    ...(certDir !== undefined && { certDir }),
    environment,
    allowHttpStorage: options.allowHttpStorage === true || insecure,
  };
  const credentials = options.credentialsFor(endpoint, host === own.host);
  // A wait that is skipped must not use up the pull's budget.
  const mirror = { retryPolicy: failFast(retryPolicy, host), waits: createWaitBudget() };
  const session = createRegistrySession({
    ...options,
    ...transport,
    repository,
    insecure,
    credentials,
    ...(endpoint !== own && mirror),
  });
  return { session, target: { transport, repository } };
}

/** Ends a request at the first failure or wait, since another endpoint can serve it. */
function failFast(policy: RetryPolicy, host: string): RetryPolicy {
  return {
    received: (bytes) => policy.received(bytes),
    miss: (reason: Failure) => Promise.reject(fromFailure(reason)),
    pause: () => {
      throw new PullError('network-hopeless', `${host} asks to wait`);
    },
  };
}
