const TICK_MS = 100;

/** Receives bytes, and must process them after some time even if no more come. */
interface Receiver {
  tick(now: number): void;
}

const receivers = new Set<Receiver>();
let ticking: NodeJS.Timeout | undefined;

/** Calls `tick` of the receiver with `performance.now()` every TICK_MS until `unwatch`. */
export function watch(receiver: Receiver): void {
  receivers.add(receiver);
  ticking ??= setInterval(() => {
    const now = performance.now();
    for (const each of receivers) each.tick(now);
  }, TICK_MS);
}

export function unwatch(receiver: Receiver): void {
  receivers.delete(receiver);
  if (receivers.size > 0) return;
  clearInterval(ticking);
  ticking = undefined;
}
