import { appendFileSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import type { BlobRange } from '../plan/missing.js';
import { onDisk, onDiskAsync, unlessAbsent } from '../store/storage-error.js';

/** A range is 8 MiB as a rule: 64 MiB of lines are 20 TB. */
const MAX_JOURNAL_BYTES = 64 * 2 ** 20;

/**
 * Beside a file that is being filled, which ranges of it have been: a line each, after a first one that says what the file
 * is to be. It is advice, as a digest has the last word; a line that a crash cut off is none.
 */
export class RangeJournal {
  readonly #path: string;
  readonly #key: string;

  constructor(path: string, key: string) {
    this.#path = path;
    this.#key = key;
  }

  /** The ranges noted for this same purpose. @throws PullError as `storageError` */
  read(): BlobRange[] {
    const text = unlessAbsent(`read ${this.#path}`, () => readFileSync(this.#path, 'latin1')) ?? '';
    if (text.length > MAX_JOURNAL_BYTES || !text.startsWith(`${this.#key}\n`)) return [];
    return text.split('\n').slice(1, -1).flatMap(parseLine);
  }

  /** Begins anew. @throws PullError as `storageError` */
  async begin(): Promise<void> {
    await onDiskAsync(`write ${this.#path}`, () => writeFile(this.#path, `${this.#key}\n`));
  }

  /** @throws PullError as `storageError` */
  note({ start, end }: BlobRange): void {
    onDisk(`write ${this.#path}`, () => appendFileSync(this.#path, `${start} ${end}\n`));
  }

  /** @throws PullError as `storageError` */
  async remove(): Promise<void> {
    await onDiskAsync(`delete ${this.#path}`, () => rm(this.#path, { force: true }));
  }
}

function parseLine(line: string): BlobRange[] {
  const match = /^(\d{1,16}) (\d{1,16})$/.exec(line);
  if (match === null) return [];
  const [start, end] = [Number(match[1]), Number(match[2])];
  return Number.isSafeInteger(end) && start < end ? [{ start, end }] : [];
}
