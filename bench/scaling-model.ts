/** What a pull of one layer was measured to need, in seconds of CPU time. */
export interface Shares {
  /** Until the plan was made: resolving, metadata, the start of threads, one after the other. */
  readonly startSeconds: number;
  /** All threads together, from then on. */
  readonly allSeconds: number;
  /** The main thread, which there is one of. */
  readonly mainSeconds: number;
  /** The busiest thread that works on one layer and cannot be helped by others: it hashes, or decodes a stream. */
  readonly layerSeconds: number;
  readonly blobBytes: number;
}

export interface Machine {
  readonly cores: number;
  /** What the network brings; Infinity where it is no limit. */
  readonly bytesPerSecond: number;
}

export type Limit = 'cores' | 'layer' | 'main thread' | 'network';

/**
 * How long a pull takes of the same bytes in so many equal layers, and what it waits for. The work that can be shared is done by all cores (Amdahl's
 * law); a layer's hash, or its decoding as a stream, is one thread's, and there are as many such threads as cores; the main thread's work and what
 * the network brings are shared by nobody. The largest of these is the time, as they go on side by side.
 */
export function predict(
  shares: Shares,
  layers: number,
  { cores, bytesPerSecond }: Machine,
): { readonly seconds: number; readonly limit: Limit } {
  const rounds = Math.ceil(layers / Math.min(layers, cores));
  const times: ReadonlyArray<readonly [Limit, number]> = [
    ['cores', shares.allSeconds / cores],
    ['layer', (shares.layerSeconds / layers) * rounds],
    ['main thread', shares.mainSeconds],
    ['network', shares.blobBytes / bytesPerSecond],
  ];
  const [limit, seconds] = times.reduce((longest, time) => (time[1] > longest[1] ? time : longest));
  return { seconds: shares.startSeconds + seconds, limit };
}
