import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { systemCode } from '../files/storage-error.js';

/**
 * Makes a directory and those around it, which may all be there.
 * @returns the first one that was made
 * @throws the system's error; where Node says ENOENT of a file system that is read-only, that it is
 */
export function makeDirectory(path: string, mode?: number): string | undefined {
  try {
    return mkdirSync(path, { recursive: true, ...(mode !== undefined && { mode }) });
  } catch (error) {
    if (systemCode(error) === 'ENOENT') accessSync(nearest(resolve(path)), constants.W_OK);
    throw error;
  }
}

/** The path itself or what is there around it. */
function nearest(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : nearest(dirname(path));
}
