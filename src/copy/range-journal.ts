import { constants, fstatSync, writeSync } from 'node:fs';
import { removeFileSync } from '../files/atomic-file.js';
import { readBytes } from '../files/open-file.js';
import { findOwnFile, makeOwnFile, type OwnFile, withOwnFile } from '../files/own-file.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';

/**
 * What is beyond is fetched again. A line is 30 bytes at most, and stands for 1 MiB as a rule: 2 TB. Where 16 slow connections
 * note what they have twice a second, it is 19 hours.
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
  readonly #owner: number;

  /** `owner`: to whom files belong that this user makes there. */
  constructor(path: string, key: string, owner: number) {
    this.path = path;
    this.#key = key;
    this.#owner = owner;
  }

  /** The journal that an earlier process of this user left, if there is one. @throws PullError as `storageError` */
  find(): OwnFile | undefined {
    return wrapFsError(`open ${this.path}`, () => findOwnFile(this.path, this.#owner));
  }

  /** The ranges that `find` has noted for this same purpose, as they came. @throws PullError as `storageError` */
  read(): FileRange[] {
    const file = this.find();
    if (file === undefined) return [];
    const read = (fd: number) => readBytes(fd, Math.min(fstatSync(fd).size, MAX_JOURNAL_BYTES));
    const bytes = wrapFsError(`read ${this.path}`, () => withOwnFile(file, constants.O_RDONLY, read));
    const text = bytes.toString('latin1');
    if (!text.startsWith(`${this.#key}\n`)) return [];
    return text.split('\n').slice(1, -1).flatMap(parseLine);
  }

  /** Begins anew, whatever has its name. @throws PullError as `storageError` */
  begin(): OwnFile {
    this.remove();
    const line = Buffer.from(`${this.#key}\n`);
    return wrapFsError(`write ${this.path}`, () =>
      makeOwnFile(this.path, (fd) => writeFully(fd, this.path, line, 0)),
    );
  }

  /** @throws PullError as `storageError` */
  remove(): void {
    removeFileSync(this.path);
  }
}

/**
 * Adds a range that is in the file to its journal. Several threads may: a line is one write, and goes to the end.
 * @throws PullError as `storageError`
 */
export function noteRange(journal: OwnFile, { start, end }: FileRange): void {
  const flags = constants.O_WRONLY | constants.O_APPEND;
  wrapFsError(`write ${journal.path}`, () =>
    withOwnFile(journal, flags, (fd) => writeSync(fd, `${start} ${end}\n`)),
  );
}

function parseLine(line: string): FileRange[] {
  const match = /^(\d{1,16}) (\d{1,16})$/.exec(line);
  if (match === null) return [];
  const [start, end] = [Number(match[1]), Number(match[2])];
  return Number.isSafeInteger(end) && start < end ? [{ start, end }] : [];
}
