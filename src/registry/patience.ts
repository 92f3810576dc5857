import type { Failure } from '../format/error.js';
import type { FailedHost } from './network-error.js';

/** A server told us to wait, or to ask less often. */
export interface Wait {
  readonly host: string;
  readonly waitMs: number;
  /** It is no registry but a storage, to which a redirect led, or where foreign blobs lie: no credentials are sent there. */
  readonly isElsewhere?: boolean | undefined;
  /** Why, in the server's own words, escaped. */
  readonly words?: string | undefined;
}

/**
 * What the main thread's requests report to: karma, seen from the network's side. Whoever implements it decides when
 * the network is beyond hope.
 */
export interface Patience {
  /** Body bytes of a 2xx answer. */
  received(bytes: number): void;
  /** A network failure, of `failed`. Resolves when it is time to ask again, rejects with the PullError that ends the pull. */
  miss(reason: Failure, failed?: FailedHost): Promise<void>;
  /** This one waits and does not ask: while nobody asks, karma's clock stands still. Ends by the returned function. */
  pause(wait: Wait): () => void;
}
