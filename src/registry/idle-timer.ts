export interface IdleTimer {
  start(): void;
  progress(): void;
  stop(): void;
  expired(): boolean;
}

/** Calls `onIdle` after `timeoutMs` without `progress`; time in which `isHolding` is true does not count. */
export function createIdleTimer(timeoutMs: number, isHolding: () => boolean, onIdle: () => void): IdleTimer {
  let timer: NodeJS.Timeout | undefined;
  let steps = 0;
  let expired = false;

  function fire(): void {
    if (isHolding()) {
      timer?.refresh();
      return;
    }
    // After a long stop (a suspended machine, a busy loop) the timer is due before the bytes that waited are read:
    // one turn of the event loop lets them count.
    const before = steps;
    setImmediate(() => {
      if (timer === undefined) return;
      if (steps !== before) {
        timer.refresh();
        return;
      }
      expired = true;
      onIdle();
    });
  }

  return {
    start() {
      timer ??= setTimeout(fire, timeoutMs);
    },
    progress() {
      steps++;
      timer?.refresh();
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
    expired: () => expired,
  };
}
