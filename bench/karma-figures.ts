import { Karma } from '../src/pull/retry-policy.js';

/** The default of `--patience`. */
const TAU_MS = 1000;

/** How often a pull feeds its karma. */
const FEED_MS = 50;

/** A request waits this long after a miss. */
const RETRY_MS = 1000;

/** By then every history has settled: 30 time constants. */
const SETTLED_MS = 30 * TAU_MS;

/** A day is for ever here. */
const FOR_EVER_MS = 86_400_000;

/** How requests fail once the network is dead: the first miss comes after so long, the others after each try. */
export interface Death {
  readonly firstMissMs: number;
  readonly tryMs: number;
  /** The failures of all connections count as one, as their timeouts do. */
  readonly isOne: boolean;
}

/** The server's host says at once that nobody listens. */
export const REFUSED: Death = { firstMissMs: 0, tryMs: 0, isOne: false };

/** Nobody answers: bodies fall silent for one idle timeout, then come connect timeouts. */
export const SILENT: Death = { firstMissMs: 10_000, tryMs: 5_000, isOne: true };

/** A network that brought `bytesPerSecond` dies: seconds until a pull with so many connections gives up. */
export function secondsUntilGivenUp(bytesPerSecond: number, connections: number, death: Death): number {
  const karma = new Karma(TAU_MS, 0);
  for (let now = FEED_MS; now <= SETTLED_MS; now += FEED_MS) {
    karma.received((bytesPerSecond * FEED_MS) / 1000, now);
  }
  for (let missMs = death.firstMissMs; missMs < FOR_EVER_MS; missMs += RETRY_MS + death.tryMs) {
    for (let failure = 0; failure < (death.isOne ? 1 : connections); failure++) {
      if (karma.miss(SETTLED_MS + missMs)) return missMs / 1000;
    }
  }
  return Number.POSITIVE_INFINITY;
}

/** Whether a link that brings so many bytes, evenly, between failures so many seconds apart is gone on with for ever. */
export function survives(bytesBetween: number, secondsBetween: number): boolean {
  const karma = new Karma(TAU_MS, 0);
  const steps = Math.max(1, Math.round((secondsBetween * 1000) / FEED_MS));
  const stepMs = (secondsBetween * 1000) / steps;
  const failures = Math.ceil(SETTLED_MS / (secondsBetween * 1000)) + 1;
  for (let step = 1; step <= steps * failures; step++) {
    karma.received(bytesBetween / steps, step * stepMs);
    if (step % steps === 0 && karma.miss(step * stepMs)) return false;
  }
  return true;
}

/** The fewest bytes between two failures with which such a link is gone on with, to 1 %. */
export function fewestBytes(secondsBetween: number): number {
  let low = 1e-3;
  let high = 1e6;
  while (high / low > 1.01) {
    const middle = Math.sqrt(low * high);
    if (survives(middle, secondsBetween)) high = middle;
    else low = middle;
  }
  return high;
}
