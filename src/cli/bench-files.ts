import { randomBytes } from 'node:crypto';
import {
  accessSync,
  constants,
  mkdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { refuseSpecialFile } from '../files/atomic-file.js';
import { readRegularFile } from '../files/read-input.js';
import { removeTree } from '../files/remove-tree.js';
import { makeScratch, removeDeadScratches } from '../files/scratch.js';
import { outsideStore, wrapFsError } from '../files/storage-error.js';
import { parseReport } from '../measure/compare.js';
import type { Report } from '../measure/report.js';
import { UsageError } from './failure.js';
import { printable } from './format-text.js';

/** A report with a timeline for each of some thousand runs. */
const MAX_REPORT_BYTES = 256 * 2 ** 20;

/** Reads what `--json` wrote. @throws UsageError */
export function readReport(path: string): Report {
  const input = readRegularFile(path, MAX_REPORT_BYTES);
  const hint = 'give --compare a file that zpull bench --json has written';
  if (!('bytes' in input)) throw new UsageError(`${path} ${input.problem}`, hint);
  try {
    return parseReport(input.bytes.toString());
  } catch (error) {
    throw new UsageError(`${path} ${(error as Error).message}`, hint);
  }
}

/**
 * Checks before anything is measured that a file can be written.
 * @throws PullError `option-malformed` for a device or a pipe, which a rename would replace; else as
 *   `storageError`
 */
export function requireWritable(file: string): void {
  const path = targetOf(file);
  refuseSpecialFile(path);
  writing(path, () => {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
      throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' });
    accessSync(dirname(path), constants.W_OK);
  });
}

/** Writes a file so that it is never there in part. @throws PullError as `storageError` */
export function replaceFile(file: string, text: string): void {
  const path = targetOf(file);
  writing(path, () => {
    const temporary = `${path}.${randomBytes(8).toString('hex')}.tmp`;
    try {
      writeFileSync(temporary, text, { flag: 'wx' });
      renameSync(temporary, path);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  });
}

function writing(path: string, action: () => void): void {
  try {
    wrapFsError(`write ${path}`, action);
  } catch (error) {
    throw outsideStore(error);
  }
}

/** The absolute path of a file; of a link, that of the file that it leads to. */
function targetOf(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return resolve(file); // It is not there yet, or `writing` says why it cannot be.
  }
}

/** A directory for everything that a measurement writes. */
export interface Scratch {
  readonly path: string;
  /** Deletes it, and the directories around it that were made for it and have nothing else. */
  remove(): void;
}

/**
 * Makes a directory for all stores of a measurement, on the disk of the user's store, and deletes
 * those of measurements that were killed.
 * @throws PullError as `storageError`
 */
export function openScratch(store: string): Scratch {
  const { path, first } = wrapFsError(`create a directory in ${store}`, () => {
    const made = mkdirSync(store, { recursive: true, mode: 0o700 });
    removeDeadScratches(store);
    return { path: makeScratch(store), first: made };
  });
  return {
    path,
    remove() {
      try {
        removeTree(path);
      } catch (error) {
        process.stderr.write(`warning: could not delete ${printable(path)}: ${(error as Error).message}\n`);
      }
      if (first !== undefined) removeEmpty(store, first);
    },
  };
}

/** Deletes `path` and the directories around it down from `first`, as far as they are empty. */
function removeEmpty(path: string, first: string): void {
  try {
    for (let each = path; each.length >= first.length; each = dirname(each)) rmdirSync(each);
  } catch {
    // It has something else in it.
  }
}
