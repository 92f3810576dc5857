import { Semaphore } from '../pool/semaphore.js';
import { createRateLimit, type RateLimit } from '../pool/shared-memory.js';
import type { TokenCache } from '../registry/token.js';
import type { Stop } from './pull-context.js';

/** Pulls that ask registries for manifests and configs at a time: one dead registry delays few. */
const MAX_RESOLVING = 4;

/**
 * Exports, listings and streams at a time, each with up to four threads: a stream whose reader is
 * slow keeps its threads.
 */
const MAX_EXPORTING = 4;

/** The work of which only so much is done at a time. */
const TURNS = {
  resolve: MAX_RESOLVING,
  /** One pull or copy uses all cores and the whole network; several would only divide them. */
  pull: 1,
  /** An inspection has a turn of its own: it reads metadata only, and should not wait for a pull. */
  inspect: 1,
  export: MAX_EXPORTING,
} as const;

export type TurnKind = keyof typeof TURNS;

/** What the pulls, copies and exports of one command or client share. */
export class Shared {
  readonly tokens: TokenCache = new Map();
  /** Limits what all of them receive together. */
  readonly rateLimit: RateLimit | undefined;
  readonly #turns = Object.fromEntries(
    Object.entries(TURNS).map(([kind, count]) => [kind, new Semaphore(count)]),
  ) as Record<TurnKind, Semaphore>;

  /** `limitRate`: bytes a second. */
  constructor(limitRate?: number) {
    this.rateLimit = limitRate === undefined ? undefined : createRateLimit(limitRate);
  }

  /**
   * Waits for a turn, first come, first served.
   * @returns a function that ends the turn, however often it is called
   * @throws the reason of the stop
   */
  async turn(kind: TurnKind, stop: Pick<Stop, 'guard'>): Promise<() => void> {
    const semaphore = this.#turns[kind];
    let isOver = false;
    const end = () => {
      if (!isOver) semaphore.release(1);
      isOver = true;
    };
    const acquired = semaphore.acquire(1);
    try {
      await stop.guard(acquired);
    } catch (error) {
      void acquired.then(end);
      throw error;
    }
    return end;
  }
}
