import { CounterReader } from '../pool/counters.js';
import type { PullEvent } from './events.js';

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/** Passes events on, and makes the regular ones from the shared counters. */
export class Progress {
  readonly emit: (event: PullEvent) => void;
  readonly #received: CounterReader;
  readonly #written: CounterReader;
  readonly #verified: CounterReader;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;

  constructor(counters: Uint32Array, onEvent: ((event: PullEvent) => void) | undefined) {
    this.#received = new CounterReader(counters, 'received');
    this.#written = new CounterReader(counters, 'written');
    this.#verified = new CounterReader(counters, 'verified');
    this.emit = (event) => {
      if (event.event === 'resolved' || event.event === 'planned') this.#totalBytes = event.totalBytes;
      onEvent?.(event);
      if (event.event === 'resolved' && onEvent !== undefined) {
        this.#timer = setInterval(() => onEvent(this.#state()), TICK_MS).unref();
      }
    };
  }

  /** The last state is told, then no more. */
  close(): void {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.emit(this.#state());
  }

  #state(): PullEvent {
    return {
      event: 'progress',
      receivedBytes: this.#received.total(),
      totalBytes: this.#totalBytes,
      writtenBytes: this.#written.total(),
      verifiedBytes: this.#verified.total(),
    };
  }
}
