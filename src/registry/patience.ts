import type { Failure } from '../format/error.js';

/**
 * What the main thread's requests report to: karma, seen from the network's side. Whoever implements it decides when
 * the network is beyond hope.
 */
export interface Patience {
  /** Body bytes of a 2xx answer. */
  received(bytes: number): void;
  /** A network failure. Resolves when it is time to ask again, rejects with the PullError that ends the pull. */
  miss(reason: Failure): Promise<void>;
  /** Nobody is asking: karma's clock stands still until the returned function is called. */
  pause(): () => void;
}
