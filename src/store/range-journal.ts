import { appendFileSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { onDisk, onDiskAsync, unlessAbsent } from './storage-error.js';

/**
 * What is beyond is fetched again. A line is 30 bytes at most, and stands for 1 MiB as a rule: 2 TB. Where 16 slow connections note what they
 * have twice a second, it is 19 hours.
 */
const MAX_JOURNAL_BYTES = 64 * 2 ** 20;

/** A range [start, end) of the file. */
interface FileRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Beside a file that is being filled, which ranges of it have been: a line each, after a first one that says what the file
 * is to be. It is advice, as a digest has the last word; a line that a crash cut off is none.
 */
export class RangeJournal {
  readonly path: string;
  readonly #key: string;

  constructor(path: string, key: string) {
    this.path = path;
    this.#key = key;
  }

  /** The ranges noted for this same purpose, as they came. @throws PullError as `storageError` */
  read(): FileRange[] {
    const text = unlessAbsent(`read ${this.path}`, () => readFileSync(this.path, 'latin1')) ?? '';
    if (!text.startsWith(`${this.#key}\n`)) return [];
    return text.slice(0, MAX_JOURNAL_BYTES).split('\n').slice(1, -1).flatMap(parseLine);
  }

  /** Begins anew. @throws PullError as `storageError` */
  async begin(): Promise<void> {
    await onDiskAsync(`write ${this.path}`, () => writeFile(this.path, `${this.#key}\n`));
  }

  /** @throws PullError as `storageError` */
  async remove(): Promise<void> {
    await onDiskAsync(`delete ${this.path}`, () => rm(this.path, { force: true }));
  }
}

/**
 * Adds a range that is in the file to the journal at `path`. Several threads may: a line is one write, and goes to the end.
 * @throws PullError as `storageError`
 */
export function noteRange(path: string, { start, end }: FileRange): void {
  onDisk(`write ${path}`, () => appendFileSync(path, `${start} ${end}\n`));
}

function parseLine(line: string): FileRange[] {
  const match = /^(\d{1,16}) (\d{1,16})$/.exec(line);
  if (match === null) return [];
  const [start, end] = [Number(match[1]), Number(match[2])];
  return Number.isSafeInteger(end) && start < end ? [{ start, end }] : [];
}
