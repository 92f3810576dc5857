import { type Failure, fromFailure, PullError } from '../format/error.js';
import type { SessionOptions } from './ask.js';
import type { Endpoint } from './endpoints.js';
import type { Patience } from './patience.js';
import { createRegistrySession, type RegistrySession } from './session.js';
import type { Transport } from './transport.js';

/** How a worker reaches one endpoint. */
interface EndpointAccess {
  readonly transport: Transport;
  readonly repository: string;
}

/** An image's repository at all its endpoints, asked as one. */
export interface MirroredSession extends RegistrySession {
  /** In the order in which they are to be asked for blobs: first the one that had the manifest, where `blobUrl` leads. */
  readonly endpoints: readonly EndpointAccess[];
  /** As `RegistrySession.authorization`, of an endpoint by its place in `endpoints`. */
  authorization(stale?: string, endpoint?: number): Promise<string | undefined>;
  /** `http://…` or `https://…` of an endpoint, as found out by the first question to it. */
  originOf(endpoint: number): string;
}

interface MirroredOptions extends Omit<SessionOptions, 'host' | 'repository'> {
  /** At least one; the last is the image's own registry. */
  readonly endpoints: readonly Endpoint[];
  /** Hears why an endpoint was passed over. */
  skipped(message: string): void;
}

/**
 * A session at several endpoints: a question goes to the next one when an endpoint refuses, fails or answers wrongly,
 * and only the last one's failures are misses. Every endpoint has a token and certificates of its own.
 */
export function createMirroredSession(options: MirroredOptions): MirroredSession {
  const { endpoints } = options;
  const last = endpoints.length - 1;
  const transports = endpoints.map(({ host, insecure }) => transportOf(options, host, insecure));
  const sessions = endpoints.map(({ repository, insecure }, i) =>
    createRegistrySession({
      ...options,
      ...transports[i]!,
      repository,
      insecure,
      patience: i === last ? options.patience : impatient(options.patience, endpoints[i]!.host),
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
        if (i === last || !(error instanceof PullError)) throw error;
        options.skipped(`${error.message}; going on with ${endpoints[i + 1]!.host}`);
      }
    }
  }

  return {
    get origin() {
      return at(0).origin;
    },
    get endpoints() {
      return order().map((i) => ({ transport: transports[i]!, repository: endpoints[i]!.repository }));
    },
    getManifest: (reference) => askEach((session) => session.getManifest(reference)),
    getBlob: (digest, sizeBytes) => askEach((session) => session.getBlob(digest, sizeBytes)),
    blobUrl: (digest) => at(0).blobUrl(digest),
    authorization: (stale, endpoint = 0) => at(endpoint).authorization(stale),
    originOf: (endpoint) => at(endpoint).origin,
    close() {
      for (const session of sessions) session.close();
    },
  };
}

/** An insecure endpoint's certificate may be anybody's. */
function transportOf({ tlsVerify, certDir, environment }: MirroredOptions, host: string, insecure: boolean) {
  const verify = tlsVerify && !insecure;
  return { host, tlsVerify: verify, ...(certDir === undefined ? {} : { certDir }), environment };
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
