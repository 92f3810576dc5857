import type { CounterReader } from '../pool/counters.js';
import type { ExportEvent } from './events.js';

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/** Makes regular events of what the threads of an export count. */
export class ExportProgress {
  readonly #written: CounterReader;
  readonly #onEvent: (event: ExportEvent) => void;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;

  constructor(written: CounterReader, onEvent: (event: ExportEvent) => void) {
    this.#written = written;
    this.#onEvent = onEvent;
  }

  /** Tells how much there is to write, unless that was told before, and from then on how much is written. */
  readonly begin = (destination: string, totalBytes: number, wasTold = false): void => {
    this.#totalBytes = totalBytes;
    if (!wasTold) this.#onEvent({ event: 'exporting', destination, totalBytes });
    this.#timer = setInterval(() => this.tell(), TICK_MS).unref();
  };

  tell(): void {
    const totalBytes = this.#totalBytes;
    const writtenBytes = Math.min(totalBytes, this.#written.total());
    this.#onEvent({ event: 'written', writtenBytes, totalBytes });
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
