export interface IdleTimer {
  /** The request has been sent. */
  start(): void;
  /** The answer has begun; its body has not. */
  answered(): void;
  /** Bytes of the body have come. */
  progress(): void;
  stop(): void;
  expired(): boolean;
}

interface Timeouts {
  /** Before the answer, and again before the first byte of its body. */
  readonly answerTimeoutMs: number;
  /** Between bytes of the body. */
  readonly idleTimeoutMs: number;
}

/**
 * Calls `onIdle` when an answer, or its body, does not begin (`answer`) or go on (`idle`) in time; time in which `isHolding` is
 * true does not count.
 */
export function createIdleTimer(
  { answerTimeoutMs, idleTimeoutMs }: Timeouts,
  isHolding: () => boolean,
  onIdle: (phase: 'answer' | 'idle') => void,
): IdleTimer {
  let timer: NodeJS.Timeout | undefined;
  let phase: 'answer' | 'idle' = 'answer';
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
      onIdle(phase);
    });
  }

  return {
    start() {
      timer ??= setTimeout(fire, answerTimeoutMs);
    },
    answered() {
      steps++;
      timer?.refresh();
    },
    progress() {
      steps++;
      if (phase === 'idle') {
        timer?.refresh();
      } else if (timer !== undefined) {
        phase = 'idle';
        clearTimeout(timer);
        timer = setTimeout(fire, idleTimeoutMs);
      }
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
    expired: () => expired,
  };
}
