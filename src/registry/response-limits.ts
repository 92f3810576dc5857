import { GrowingBuffer } from '../format/arrays.js';

/** Four times the limit of Node and most servers: some proxies add 20 KB of headers. */
export const MAX_HEADER_BYTES = 64 * 1024;

/**
 * How far a body is read that is only good for a message (of a redirect, a challenge, an error):
 * most have a few hundred bytes. After this the connection is closed.
 */
const MAX_UNWANTED_BODY_BYTES = 64 * 1024;

/** It usually comes with its headers, and a new connection costs less than this. */
const UNWANTED_BODY_MS = 2_000;

/** A small response may take this many idle timeouts, even if each brings a byte. */
const IDLE_TIMEOUTS = 6;

/** Slower than a modem: a manifest of 4 MiB may take 17 minutes. */
const MIN_BYTES_A_SECOND = 4096;

/**
 * How long the body of a small response (a token, a manifest, a config) may take to deliver
 * `receivedBytes`, in milliseconds: 60 s by default, and a second for each 4 KiB. The idle timeout
 * alone would allow a byte every nine seconds for a year.
 */
export function smallResponseMs(idleTimeoutMs: number, receivedBytes: number): number {
  return IDLE_TIMEOUTS * idleTimeoutMs + (receivedBytes * 1000) / MIN_BYTES_A_SECOND;
}

/** The beginning of a body that is only good for a message. */
export interface Excerpt {
  add(chunk: Buffer): void;
  /** Returns what has come. */
  end(): Buffer;
}

/** Calls `onEnough` when there is enough of the body, or it takes too long. */
export function createExcerpt(idleTimeoutMs: number, onEnough: () => void): Excerpt {
  const bytes = new GrowingBuffer();
  const timer = setTimeout(onEnough, Math.min(UNWANTED_BODY_MS, idleTimeoutMs));
  return {
    add(chunk) {
      bytes.add(chunk.subarray(0, MAX_UNWANTED_BODY_BYTES - bytes.length));
      if (bytes.length === MAX_UNWANTED_BODY_BYTES) onEnough();
    },
    end() {
      clearTimeout(timer);
      return bytes.bytes();
    },
  };
}

export interface IdleTimer {
  /** The request has been sent. */
  start(): void;
  /** The response has begun; its body has not. */
  responseStarted(): void;
  /** Bytes of the body have come. */
  progress(): void;
  stop(): void;
  expired(): boolean;
}

interface Timeouts {
  /** Before the response, and again before the first byte of its body. */
  readonly answerTimeoutMs: number;
  /** Between bytes of the body. */
  readonly idleTimeoutMs: number;
}

/**
 * Calls `onIdle` when a response or its body does not begin (`answer`) or continue (`idle`) in
 * time; time in which `isPaused` is true does not count.
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
    // After a long stop (a suspended machine, a busy loop) the timer fires before the buffered
    // bytes are read: one turn of the event loop lets them count.
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
