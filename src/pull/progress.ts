import { guardListener } from '../format/listener.js';
import { CounterReader } from '../pool/counters.js';
import type { PullEvent } from './events.js';
import { Warnings } from './warnings.js';

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/**
 * Passes events on, of warnings only some of each kind, and makes the regular ones from the shared counters. `failed` is called with an error
 * of `onEvent`, which gets no event after that.
 */
export class Progress {
  readonly emit: (event: PullEvent) => void;
  readonly #received: CounterReader;
  readonly #written: CounterReader;
  readonly #verified: CounterReader;
  readonly #warnings: Warnings;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;
  /** Layers that are pulled after others have a plan of their own. */
  #isPlanned = false;

  constructor(
    counters: Uint32Array,
    onEvent: ((event: PullEvent) => void) | undefined,
    failed: (error: Error) => void,
  ) {
    this.#received = new CounterReader(counters, 'received');
    this.#written = new CounterReader(counters, 'written');
    this.#verified = new CounterReader(counters, 'verified');
    const tell = guardListener(onEvent, failed);
    this.#warnings = new Warnings((message) => tell({ event: 'warning', message }));
    this.emit = (event) => {
      if (event.event === 'warning') {
        this.#warnings.add(event.message);
        return;
      }
      if (event.event === 'resolved') this.#totalBytes = event.totalBytes;
      if (event.event === 'planned') {
        this.#totalBytes = this.#isPlanned ? this.#totalBytes + event.totalBytes : event.totalBytes;
        this.#isPlanned = true;
      }
      tell(event);
      if (event.event === 'resolved' && onEvent !== undefined) {
        this.#timer = setInterval(() => tell(this.#state()), TICK_MS).unref();
      }
    };
  }

  /** So many more bytes are to be received than was planned; fewer when it is negative. */
  addTotal(bytes: number): void {
    this.#totalBytes += bytes;
  }

  /** The last state is told, then no more. */
  close(): void {
    this.#warnings.end();
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
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
