/** Bytes that are noted together. What is not noted is lost when the process is killed: up to so much for each connection. */
const PIECE_BYTES = 2 ** 20;

/** Bytes that have waited so long are noted, however few: a slow link must not lose what it received. */
const WAIT_MS = 500;

/** Where the bytes of a range go; positions count from its start. */
interface CheckpointedFile {
  /** Bytes have come. @throws PullError as `storageError` */
  write(chunk: Buffer, position: number): void;
  /** These are written. @throws PullError as `storageError` */
  note(start: number, end: number): void;
}

/** Writes a range of a blob as it comes, and notes what is there, piece by piece. */
export class CheckpointedWriter {
  readonly #place: CheckpointedFile;
  /** Bytes written, and those of them that are noted. */
  #written = 0;
  #noted = 0;
  #waitingSinceMs = 0;
  #failure: unknown;

  constructor(place: CheckpointedFile) {
    this.#place = place;
  }

  /** The next bytes. @throws PullError as the place */
  readonly write = (chunk: Buffer): void => {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written - this.#noted + chunk.length > PIECE_BYTES) this.note();
    if (this.#written === this.#noted) this.#waitingSinceMs = performance.now();
    this.#place.write(chunk, this.#written);
    this.#written += chunk.length;
  };

  /** Notes what has waited too long; a failure comes with the next bytes, or at the end. */
  tick(now: number): void {
    if (this.#written === this.#noted || now - this.#waitingSinceMs < WAIT_MS) return;
    try {
      this.note();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Notes all that is written. @throws PullError as the place */
  note(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written === this.#noted) return;
    this.#place.note(this.#noted, this.#written);
    this.#noted = this.#written;
  }
}
