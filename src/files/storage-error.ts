import { closeSync, writeSync } from 'node:fs';
import { type ErrorCode, PullError, withHint } from '../format/error.js';

interface Meaning {
  readonly code: ErrorCode;
  readonly says: string;
  readonly hint: string;
}

/**
 * What a refused file or refused memory means for a user, by the system's error name (POSIX.1-2017,
 * errno.h).
 */
export const RESOURCE_LIMITS = {
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

/** EAGAIN means this for threads and programs, and something else for files. */
const RESOURCE_ERRORS: Readonly<Record<string, Meaning>> = {
  ...RESOURCE_LIMITS,
  EAGAIN: {
    code: 'store-broken',
    says: 'the system allows no more processes and threads',
    hint: 'Raise the limit of processes and threads: ulimit -u, or pids.max of the container.',
  },
};

/**
 * Node's messages: for a thread (the bare name in Node 20), a program or a file. Elsewhere in a
 * message the name may be part of a path.
 */
const MESSAGE = /^(?:(Worker initialization failure: )|spawn (.+) )?(EMFILE|ENFILE|ENOMEM|EAGAIN)\b/;

/**
 * Returns an error about a file, a thread, a program or memory that the system refused as a
 * PullError that names the limit. By then Node can often not even load a module. Any other error is
 * returned unchanged.
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
  const meaning = RESOURCE_ERRORS[name ?? ''];
  if (meaning === undefined || (name === 'EAGAIN' && !isThread && program === undefined)) return error;
  const doing = isThread
    ? 'start a thread'
    : program === undefined
      ? `open ${path ?? 'a file'}`
      : `start ${program}`;
  const { says, hint } = meaning;
  return new PullError(meaning.code, `could not ${doing}: ${says} (${name})`, { hint, cause: error });
}

const FULL = 'Free some space there, or choose another place with --store; what was fetched so far is kept.';
const DENIED = 'Make the store writable for this user, or choose another place with --store.';
const BROKEN = 'Check that the store is on a working disk and that nothing else changes its files.';

/**
 * What the system's error names mean for a user (POSIX.1-2017, errno.h). All others are
 * `store-broken`.
 */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOSPC: { code: 'store-full', says: 'no space is left on the device', hint: FULL },
  EDQUOT: { code: 'store-full', says: 'the disk quota is used up', hint: FULL },
  EACCES: { code: 'store-denied', says: 'permission denied', hint: DENIED },
  EPERM: { code: 'store-denied', says: 'the operation is not permitted', hint: DENIED },
  EROFS: { code: 'store-denied', says: 'the file system is read-only', hint: DENIED },
  ...RESOURCE_LIMITS,
  EIO: {
    code: 'store-broken',
    says: 'the disk reports an error',
    hint: 'Check the disk before you pull again.',
  },
  EFBIG: {
    code: 'store-broken',
    says: 'the file would be too large',
    hint: 'Raise the file size limit (ulimit -f), or choose another file system with --store.',
  },
  ENOENT: { code: 'store-broken', says: 'the file is not there', hint: BROKEN },
  ENOTDIR: { code: 'store-broken', says: 'a part of the path is not a directory', hint: BROKEN },
  EISDIR: { code: 'store-broken', says: 'a directory stands where a file should', hint: BROKEN },
  EEXIST: { code: 'store-broken', says: 'something else stands there already', hint: BROKEN },
  ELOOP: { code: 'store-broken', says: 'the path has too many symbolic links', hint: BROKEN },
};

/**
 * Returns the system's name of an error (`ENOSPC`), or undefined if it does not come from a system
 * call.
 */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof PullError) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/**
 * Converts an error of a system call to a PullError: `could not DOING: why`.
 * @returns `store-full`, `store-denied` or `store-broken`; any other error unchanged
 */
export function storageError(error: unknown, doing: string): unknown {
  const code = systemCode(error);
  if (code === undefined) return error;
  const meaning = MEANINGS[code] ?? { code: 'store-broken', says: 'the system refuses it', hint: BROKEN };
  return new PullError(meaning.code, `could not ${doing}: ${meaning.says} (${code})`, {
    hint: meaning.hint,
    cause: error,
  });
}

/**
 * Returns the error with a hint for a file outside the store `root` (or without a store): another
 * store would not help there.
 */
export function outsideStore(error: unknown, root?: string): unknown {
  if (!(error instanceof PullError) || (root !== undefined && namesPath(error.message, root))) return error;
  const hint = ['store-full', 'store-denied'].includes(error.code)
    ? 'Make room or get permission there, or choose another destination.'
    : error.hint === BROKEN
      ? 'Check that this is the destination you mean and that its directory is there.'
      : undefined;
  return hint === undefined ? error : withHint(error, hint);
}

/**
 * Whether a message names this path or a file below it, and not a path that only begins with the
 * same letters.
 */
function namesPath(message: string, path: string): boolean {
  const parts = message.split(path.replace(/[/\\]+$/, ''));
  return parts.slice(1).some((after, row) => /^(?:[/\\:\s]|$)/.test(after) && /(?:^|\s)$/.test(parts[row]!));
}

/** Returns what `action` returns. @throws PullError as `storageError` converts it */
export function wrapFsError<T>(doing: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw storageError(error, doing);
  }
}

/** Resolves to what `action` resolves to. @throws PullError as `storageError` converts it */
export async function wrapFsErrorAsync<T>(doing: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw storageError(error, doing);
  }
}

/** Whether an error says that this user may not write there. Reading may work all the same. */
export function isDenied(error: unknown): boolean {
  return error instanceof PullError && error.code === 'store-denied';
}

/** Whether an error says that nothing can be written there, for lack of permission or space. */
export function isUnwritable(error: unknown): boolean {
  return isDenied(error) || (error instanceof PullError && error.code === 'store-full');
}

/**
 * Returns what `action` returns, or undefined if the file does not exist. Not by `throwIfNoEntry:
 * false`: with Node 24 that also hides a path through a file, with Node 20 it does not.
 * @throws PullError as `wrapFsError`
 */
export function ifExists<T>(doing: string, action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw storageError(error, doing);
  }
}

/** A worker thread cannot be stopped inside a system call, so no call moves more than this. */
export const CALL_BYTES = 4 * 2 ** 20;

/**
 * Writes all of `bytes` at `position`, with more calls after short writes.
 * @throws PullError `store-full`, `store-denied` or `store-broken`, with the path and the bytes not
 *   written
 */
export function writeFully(fd: number, path: string | Buffer, bytes: Uint8Array, position: number): void {
  let done = 0;
  try {
    while (done < bytes.length) {
      const length = Math.min(CALL_BYTES, bytes.length - done);
      const written = writeSync(fd, bytes, done, length, position + done);
      if (written === 0) throw Object.assign(new Error('nothing was written'), { code: 'ENOSPC' });
      done += written;
    }
  } catch (error) {
    throw storageError(error, `write ${bytes.length - done} bytes to ${path}`);
  }
}

/**
 * Closes a written file. Some file systems (NFS) report failed writes only then.
 * @throws PullError as `storageError`
 */
export function closeWritten(fd: number, path: string | Buffer): void {
  wrapFsError(`close ${path}`, () => closeSync(fd));
}

/**
 * Something else has the name of one of our files: a link, a FIFO, a directory, or a file that is
 * too large.
 */
export class UnfitFile extends PullError {
  constructor(path: string, what: string) {
    super('store-broken', `${path} ${what}`, {
      hint: 'Find out who put it there, then move it away or choose another place.',
    });
  }
}

/** The hint for a malformed layout. */
export const LAYOUT_HINT = 'write the layout again, with zpull copy or skopeo copy';

/** Returns the hint for bytes of a layout at `path` that do not match their digest. */
export function damagedHint(path: string): string {
  return `${path} is damaged: ${LAYOUT_HINT}`;
}

/**
 * Runs `action`, which reads a file of an OCI layout, and returns its result.
 * @param absent makes the error for a missing file
 * @throws PullError of `absent`; `metadata-malformed` for a link, a pipe or too large a file;
 *   `store-denied` for any other system error
 */
export function wrapLayoutError<T>(path: string, action: () => T, absent?: (cause: unknown) => PullError): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof UnfitFile)
      throw new PullError('metadata-malformed', error.message, { hint: LAYOUT_HINT, cause: error });
    const code = systemCode(error);
    if (absent !== undefined && (code === 'ENOENT' || code === 'ENOTDIR')) throw absent(error);
    if (code === undefined) throw error;
    const { message } = storageError(error, `read ${path}`) as PullError;
    throw new PullError('store-denied', message, {
      hint: 'check that this user may read the layout',
      cause: error,
    });
  }
}
