import type { Digest } from '../format/digest.js';
import { type Failure, fromFailure, PullError } from '../format/error.js';
import type { SessionOptions } from './ask.js';
import { createWaitBudget, type Patience } from './backoff.js';
import type { Credentials } from './credentials.js';
import type { Endpoint } from './endpoints.js';
import { createRegistrySession, type RegistrySession } from './session.js';
import type { Transport } from './transport.js';

/** How a worker reaches one endpoint. */
interface EndpointAccess {
  readonly transport: Transport;
  readonly repository: string;
}

/** What a question to an endpoint needs besides. */
interface Access {
  /** `http://…` or `https://…`, as found out by the first question to it. */
  readonly origin: string;
  /** The value of the Authorization header, and from when on (Unix time) it is to be renewed. */
  readonly value: string | undefined;
  readonly expiresAtMs: number;
}

/** An image's repository at all its endpoints, asked as one. */
export interface MirroredSession
  extends Omit<RegistrySession, 'origin' | 'authorization' | 'authorizationExpiresAtMs'> {
  /** In the order in which they are to be asked for blobs: first the one that had the manifest, where `blobUrl` leads. */
  readonly endpoints: readonly EndpointAccess[];
  /** To an endpoint by its place in `endpoints`; `stale` as `RegistrySession.authorization` has it. */
  access(endpoint: number, stale?: string): Promise<Access>;
}

interface MirroredOptions extends Omit<SessionOptions, 'host' | 'repository' | 'credentials'> {
  /** At least one; the last is the image's own registry. */
  readonly endpoints: readonly Endpoint[];
  /** `isOwn`: the endpoint is on the host of the image's own registry, and may see what was given for that. */
  credentialsFor(endpoint: Endpoint, isOwn: boolean): Credentials;
}

/**
 * A session at several endpoints: a question goes to the next one when an endpoint refuses, fails or answers wrongly,
 * and only the last one's failures are misses. Every endpoint has a token and certificates of its own.
 */
export function createMirroredSession(options: MirroredOptions): MirroredSession {
  const { endpoints } = options;
  const last = endpoints.length - 1;
  const transports = endpoints.map(({ host, insecure }) => transportOf(options, host, insecure));
  const sessions = endpoints.map((endpoint, i) =>
    createRegistrySession({
      ...options,
      ...transports[i]!,
      repository: endpoint.repository,
      insecure: endpoint.insecure,
      credentials: options.credentialsFor(endpoint, endpoint.host === endpoints[last]!.host),
      ...(i !== last && {
        patience: impatient(options.patience, endpoint.host),
        // What is not waited is not booked.
        waits: createWaitBudget(),
      }),
    }),
  );
  let first = 0;
  const order = () => endpoints.map((_, i) => (first + i) % endpoints.length);
  const at = (endpoint: number) => sessions[order()[endpoint]!]!;

  async function askEach<T>(ask: (session: RegistrySession) => Promise<T>): Promise<T> {
    for (let i = first; ; i++) {
      try {
        const answer = await ask(sessions[i]!);
        first = i;
        return answer;
      } catch (error) {
        passOver(i, error);
      }
    }
  }

  /** Who does not say which digest the tag has may have it all the same: a GET goes there first as before. */
  async function headEach(tag: string): Promise<Digest | undefined> {
    for (let i = first; ; i++) {
      try {
        const digest = await sessions[i]!.headManifest(tag);
        if (digest !== undefined || i === last) return digest;
      } catch (error) {
        passOver(i, error);
        if (first === i) first = i + 1;
      }
    }
  }

  function passOver(i: number, error: unknown): void {
    if (i === last || !(error instanceof PullError)) throw error;
    options.debug?.(`${error.message}; going on with ${endpoints[i + 1]!.host}`);
  }

  return {
    get endpoints() {
      return order().map((i) => ({ transport: transports[i]!, repository: endpoints[i]!.repository }));
    },
    getManifest: (reference) => askEach((session) => session.getManifest(reference)),
    headManifest: headEach,
    getBlob: (digest, sizeBytes) => askEach((session) => session.getBlob(digest, sizeBytes)),
    blobUrl: (digest) => at(0).blobUrl(digest),
    async access(endpoint, stale) {
      const session = at(endpoint);
      const value = await session.authorization(stale);
      return { origin: session.origin, value, expiresAtMs: session.authorizationExpiresAtMs };
    },
    open: () => askEach((session) => session.open()),
    close() {
      for (const session of sessions) session.close();
    },
  };
}

/** An insecure endpoint's certificate may be anybody's, and its storage in http. */
function transportOf(options: MirroredOptions, host: string, insecure: boolean) {
  const { certDir, environment } = options;
  const tlsVerify = options.tlsVerify && !insecure;
  const allowHttpStorage = options.allowHttpStorage === true || insecure;
  return { host, tlsVerify, ...(certDir === undefined ? {} : { certDir }), environment, allowHttpStorage };
}

/** Bytes count; the first failure, or being told to wait, ends the question, since another endpoint can be asked. */
function impatient(patience: Patience, host: string): Patience {
  return {
    received: (bytes) => patience.received(bytes),
    miss: (reason: Failure) => Promise.reject(fromFailure(reason)),
    pause: () => {
      throw new PullError('network-hopeless', `${host} tells us to wait`);
    },
  };
}
