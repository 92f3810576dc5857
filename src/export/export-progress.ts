import { CounterReader } from '../pool/counters.js';
import type { ExportEvent } from './events.js';

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/** Makes regular events of what the threads of an export count. */
export class ExportProgress {
  readonly #written: CounterReader;
  readonly #onEvent: (event: ExportEvent) => void;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;
  #doneBytes = 0;

  constructor(counters: Uint32Array, onEvent: (event: ExportEvent) => void) {
    this.#written = new CounterReader(counters, 'written');
    this.#onEvent = onEvent;
  }

  /** Tells how much there is to write, unless `doneBytes` of it are written: then that was told before. */
  readonly begin = (destination: string, totalBytes: number, doneBytes?: number): void => {
    this.#totalBytes = totalBytes;
    this.#doneBytes = doneBytes ?? 0;
    if (doneBytes === undefined) this.#onEvent({ event: 'exporting', destination, totalBytes });
    this.#timer = setInterval(() => this.tell(), TICK_MS).unref();
  };

  tell(): void {
    const totalBytes = this.#totalBytes;
    const writtenBytes = Math.min(totalBytes, this.#doneBytes + this.#written.total());
    this.#onEvent({ event: 'written', writtenBytes, totalBytes });
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
