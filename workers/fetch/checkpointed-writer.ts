/**
 * Bytes between checkpoints. When the process is killed, up to this much is lost for each
 * connection.
 */
const PIECE_BYTES = 2 ** 20;

/**
 * After this time there is a checkpoint, however few the bytes: a slow link must not lose what it
 * received.
 */
const WAIT_MS = 500;

/** The target of a range; positions count from its start. */
interface CheckpointedFile {
  /** @throws PullError as `storageError` */
  write(chunk: Buffer, position: number): void;
  /** Records that these bytes are written. @throws PullError as `storageError` */
  note(start: number, end: number): void;
}

/**
 * Writes a range of a blob as it is received, and records which of its bytes are written, piece by
 * piece.
 */
export class CheckpointedWriter {
  readonly #target: CheckpointedFile;
  /** Bytes written, and how many of them are recorded. */
  #written = 0;
  #noted = 0;
  #waitingSinceMs = 0;
  #failure: unknown;

  constructor(target: CheckpointedFile) {
    this.#target = target;
  }

  /** Writes the next bytes. @throws PullError as the target */
  readonly write = (chunk: Buffer): void => {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written - this.#noted + chunk.length > PIECE_BYTES) this.note();
    if (this.#written === this.#noted) this.#waitingSinceMs = performance.now();
    this.#target.write(chunk, this.#written);
    this.#written += chunk.length;
  };

  /** Records what has waited too long. The next `write` or `note` throws its error. */
  tick(now: number): void {
    if (this.#written === this.#noted || now - this.#waitingSinceMs < WAIT_MS) return;
    try {
      this.note();
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Records all that is written. @throws PullError as the target */
  note(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#written === this.#noted) return;
    this.#target.note(this.#noted, this.#written);
    this.#noted = this.#written;
  }
}
