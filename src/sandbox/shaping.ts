import { setTimeout as sleep } from 'node:timers/promises';

/**
 * One link of a given rate: bytes leave it in the order in which they asked. Several bodies may share it.
 */
export interface Link {
  /** How many bytes a body should ask for next so that all bodies on the link get a turn every few milliseconds. */
  sliceBytes(): number;
  /** Resolves when `bytes` more may leave. */
  pass(bytes: number): Promise<void>;
}

/** The bytes of one turn: short enough that a slow body looks steady, long enough for a 1 ms timer to be exact. */
const TURN_MS = 10;
/** Timers fire late by a millisecond or two; a link that fell behind by up to this much catches up, no burst beyond. */
const CATCH_UP_MS = 20;

/** What a link needs of time, in milliseconds. */
export interface Clock {
  now(): number;
  sleep(ms: number): Promise<void>;
}

const CLOCK: Clock = {
  now: () => performance.now(),
  // Unreferenced: a listening server keeps the process alive, a closed one must not wait for its bodies.
  sleep: (ms) => sleep(ms, undefined, { ref: false }),
};

/** A link of `rateBytes` per second. */
export function createLink(rateBytes: number, clock: Clock = CLOCK): Link {
  let freeAtMs = clock.now();
  let waiting = 0;
  return {
    sliceBytes: () => Math.max(1, Math.floor((rateBytes * TURN_MS) / 1000 / Math.max(1, waiting))),
    pass: async (bytes) => {
      freeAtMs = Math.max(freeAtMs, clock.now() - CATCH_UP_MS) + (bytes * 1000) / rateBytes;
      const delayMs = freeAtMs - clock.now();
      if (delayMs <= 0) return;
      waiting++;
      await clock.sleep(delayMs);
      waiting--;
    },
  };
}

/** Resolves when `bytes` may leave through every one of these links. */
export async function passAll(links: readonly Link[], bytes: number): Promise<void> {
  for (const link of links) await link.pass(bytes);
}

/** The smallest slice of these links, at most `limitBytes`. */
export function sliceOf(links: readonly Link[], limitBytes: number): number {
  let slice = limitBytes;
  for (const link of links) slice = Math.min(slice, link.sliceBytes());
  return slice;
}
