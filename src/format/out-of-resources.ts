import { PullError } from './error.js';

interface Meaning {
  readonly code: 'store-broken';
  readonly says: string;
  readonly hint: string;
}

/** What it means for a user that the system refuses a file or memory, by the system's name for it (POSIX.1-2017, errno.h). */
export const OUT_OF_RESOURCES = {
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
  ENOMEM: {
    code: 'store-broken',
    says: 'there is not enough memory',
    hint: 'Free some memory, or raise the memory limit of this process (ulimit -v) or of its container.',
  },
} as const satisfies Readonly<Record<string, Meaning>>;

/** EAGAIN means this of threads and programs, and something else of files. */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  ...OUT_OF_RESOURCES,
  EAGAIN: {
    code: 'store-broken',
    says: 'the system allows no more processes and threads',
    hint: 'Raise the limit of processes and threads: ulimit -u, or pids.max of the container.',
  },
};

/**
 * How Node words it: of a thread (Node 20 with the bare name), of a program, of a file. Elsewhere in a message the name may be
 * part of a path.
 */
const MESSAGE = /^(?:(Worker initialization failure: )|spawn (.+) )?(EMFILE|ENFILE|ENOMEM|EAGAIN)\b/;

/**
 * An error that says that a file, a thread, a program or memory could not be had, as a PullError that says which limit is too low. By
 * then Node can often not even load a module. Any other error comes back as it is.
 */
export function asOutOfResources(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof PullError) return error;
  const { path, code } = error as NodeJS.ErrnoException;
  if (code === 'ERR_WORKER_OUT_OF_MEMORY') {
    return new PullError('store-broken', `a thread ran out of memory (${code})`, {
      hint: 'Give this process more memory, or run it with fewer --workers and --connections.',
      cause: error,
    });
  }
  const [, worded, program, name] = MESSAGE.exec(error.message) ?? [];
  const isThread = worded !== undefined || code === 'ERR_WORKER_INIT_FAILED';
  const meaning = MEANINGS[name ?? ''];
  if (meaning === undefined || (name === 'EAGAIN' && !isThread && program === undefined)) return error;
  const doing = isThread
    ? 'start a thread'
    : program === undefined
      ? `open ${path ?? 'a file'}`
      : `start ${program}`;
  const { says, hint } = meaning;
  return new PullError(meaning.code, `could not ${doing}: ${says} (${name})`, { hint, cause: error });
}
