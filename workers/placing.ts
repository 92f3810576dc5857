import { lstatSync, rmSync } from 'node:fs';
import { onDisk, storageError, systemCode } from '../src/store/storage-error.js';

/** Rows dealt with before the thread's other business has its turn: some milliseconds. */
export const ROWS_A_TURN = 100;

/**
 * Does what makes `path`. With `replace`, what is there under that name goes first, whatever it is; it is never
 * written to or followed.
 * @throws PullError as `storageError`
 */
export function place<T>(path: Buffer, replace: boolean, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!replace || systemCode(error) !== 'EEXIST') throw storageError(error, `create ${path}`);
  }
  return onDisk(`replace ${path}`, () => {
    rmSync(path, { recursive: true, force: true });
    return make();
  });
}

/** Whether there is anything under a name. */
export function isThere(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Whether a directory stands at `path` itself, not behind a symbolic link. */
export function isDirectory(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** A time as Node sets it, to the microsecond; before 1970, where a number would mean "now", to the millisecond. */
export function fileTime(seconds: number, nanos: number): number | Date {
  return seconds < 0 ? new Date(seconds * 1000 + Math.floor(nanos / 1e6)) : seconds + nanos / 1e9;
}
