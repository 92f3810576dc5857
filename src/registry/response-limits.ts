/**
 * How much a response may have before its body: four times what Node and most servers take, as some proxies add policies and cookies of
 * 20 KB.
 */
export const MAX_HEADER_BYTES = 64 * 1024;

/**
 * How far a body is read that nobody needs (of a redirect, a challenge, an error): error bodies have a few hundred bytes. Behind
 * this the connection is closed.
 */
export const MAX_UNWANTED_BODY_BYTES = 64 * 1024;

/** How long such a body is waited for: it usually comes with its headers, and a new connection costs less than this. */
const UNWANTED_BODY_MS = 2_000;

/** A small answer may take as long as so many silences: nobody who lets a byte go in each of them holds a pull for long. */
const IDLE_TIMEOUTS = 6;

/** Slower than a modem. A manifest of 4 MiB may take 17 minutes at this rate, and one of usual size comes within the first minute. */
const MIN_BYTES_A_SECOND = 4096;

/** How long to wait for a body that nobody needs, in milliseconds. */
export function unwantedBodyMs(idleTimeoutMs: number): number {
  return Math.min(UNWANTED_BODY_MS, idleTimeoutMs);
}

/**
 * How long the body of a small answer (a token, a manifest, a config) may take when so many bytes of it are there, in
 * milliseconds: 60 s by default, and a second for each 4 KiB. The idle timeout alone would let a byte every nine seconds go on for a
 * year.
 */
export function smallResponseMs(idleTimeoutMs: number, receivedBytes: number): number {
  return IDLE_TIMEOUTS * idleTimeoutMs + (receivedBytes * 1000) / MIN_BYTES_A_SECOND;
}

export interface IdleTimer {
  /** The request has been sent. */
  start(): void;
  /** The answer has begun; its body has not. */
  responseStarted(): void;
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
 * Calls `onIdle` when an answer, or its body, does not begin (`answer`) or go on (`idle`) in time; time in which `isPaused` is
 * true does not count.
 */
export function createIdleTimer(
  { answerTimeoutMs, idleTimeoutMs }: Timeouts,
  isPaused: () => boolean,
  onIdle: (phase: 'answer' | 'idle') => void,
): IdleTimer {
  let timer: NodeJS.Timeout | undefined;
  let phase: 'answer' | 'idle' = 'answer';
  let steps = 0;
  let expired = false;

  function fire(): void {
    if (isPaused()) {
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
    responseStarted() {
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
