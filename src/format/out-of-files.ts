import { PullError } from './error.js';

/** What it means for a user that there is no file left to open, by the system's name for it (POSIX.1-2017, errno.h). */
export const OUT_OF_FILES = {
  EMFILE: {
    code: 'store-broken',
    says: 'this process has too many open files',
    hint: 'Raise the limit of open files (ulimit -n).',
  },
  ENFILE: {
    code: 'store-broken',
    says: 'the system has too many open files',
    hint: 'Close other programs, or raise the system limit of open files.',
  },
} as const;

/** How Node says it of a module and of a thread. Elsewhere in a message the word may be a part of a path. */
const MESSAGE = /^(?:Worker initialization failure: )?(EMFILE|ENFILE)\b/;

/**
 * What a process meets that has no file left to open, as a PullError: then not even its own modules load, and no thread starts.
 * Any other error comes back as it is.
 */
export function asOutOfFiles(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof PullError) return error;
  const [, name] = MESSAGE.exec(error.message) ?? [];
  if (name !== 'EMFILE' && name !== 'ENFILE') return error;
  const { path } = error as NodeJS.ErrnoException;
  const { code, says, hint } = OUT_OF_FILES[name];
  const doing = path === undefined ? 'start a thread' : `open ${path}`;
  return new PullError(code, `could not ${doing}: ${says} (${name})`, { hint, cause: error });
}
