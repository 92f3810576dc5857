import { constants, fstatSync, writeSync } from 'node:fs';
import { removeFileSync } from '../files/atomic-file.js';
import { findOwnFile, makeOwnFile, type OwnFile, withOwnFile } from '../files/guarded-directory.js';
import { readBytes } from '../files/open-file.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';
import type { BlobRange } from '../format/arrays.js';

/**
 * Ranges beyond are fetched again. A line is at most 30 bytes and stands for 1 MiB as a rule, for 2
 * TB together. If 16 slow connections add lines twice a second, it lasts for 19 hours.
 */
const MAX_JOURNAL_BYTES = 64 * 2 ** 20;

/**
 * The ranges that have been written to an unfinished file: one a line, after a first line with the
 * key of the file. Errors in it do no harm, as the digest is verified; a line cut off by a crash is
 * ignored.
 */
export class RangeJournal {
  readonly path: string;
  readonly #key: string;
  readonly #owner: number;

  /** `owner`: the owner of files that this user creates there. */
  constructor(path: string, key: string, owner: number) {
    this.path = path;
    this.#key = key;
    this.#owner = owner;
  }

  /**
   * The journal of an earlier process of this user, if there is one.
   * @throws PullError as `storageError`
   */
  find(): OwnFile | undefined {
    return wrapFsError(`open ${this.path}`, () => findOwnFile(this.path, this.#owner));
  }

  /**
   * The ranges of the journal, if its key is the same, in the order of writing.
   * @throws PullError as `storageError`
   */
  read(): BlobRange[] {
    const file = this.find();
    if (file === undefined) return [];
    const read = (fd: number) => readBytes(fd, Math.min(fstatSync(fd).size, MAX_JOURNAL_BYTES));
    const bytes = wrapFsError(`read ${this.path}`, () => withOwnFile(file, constants.O_RDONLY, read));
    const text = bytes.toString('latin1');
    if (!text.startsWith(`${this.#key}\n`)) return [];
    return text.split('\n').slice(1, -1).flatMap(parseLine);
  }

  /** Creates an empty journal, and replaces any other. @throws PullError as `storageError` */
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
 * Adds a written range to a journal. Safe for several threads: a line is one appending write.
 * @throws PullError as `storageError`
 */
export function noteRange(journal: OwnFile, { start, end }: BlobRange): void {
  const flags = constants.O_WRONLY | constants.O_APPEND;
  wrapFsError(`write ${journal.path}`, () =>
    withOwnFile(journal, flags, (fd) => writeSync(fd, `${start} ${end}\n`)),
  );
}

function parseLine(line: string): BlobRange[] {
  const match = /^(\d{1,16}) (\d{1,16})$/.exec(line);
  if (match === null) return [];
  const [start, end] = [Number(match[1]), Number(match[2])];
  return Number.isSafeInteger(end) && start < end ? [{ start, end }] : [];
}
