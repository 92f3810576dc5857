import { write as writeFile } from 'node:fs';
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type CopyOptions, type CopyResult, copyImage } from '../../api/copy.js';
import { PullError } from '../../api/errors.js';
import { type CopyDestination, checkStdout, isStdout, parseCopyDestination } from '../destination.js';
import { jsonLine } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer, withRenderer } from '../progress/renderer.js';
import { pullOptionsOf, readPassword } from '../pull-options.js';
import { untilSignal } from '../signals.js';
import type { SharedState } from './pull.js';

/**
 * `zpull copy IMAGE DEST`: prints the digest of the manifest, or of the index with
 * `--all-platforms`, unless the copy goes to stdout.
 */
export async function runCopy(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseCopyDestination(text);
  if (isStdout(destination)) checkStdout(text, given.json, process.stdout.isTTY);
  const options = await readPassword(given);
  const result = await untilSignal(
    (signal) => copyWithProgress(image, destination, options, signal),
    isStdout(destination) ? undefined : 'at the destination',
  );
  if (isStdout(destination)) return 0;
  const { json = false } = options;
  process.stdout.write(json ? jsonLine({ ...result, destination: text }) : `${result.digest}\n`);
  return 0;
}

/**
 * Copies an image with the options of the command line and shows progress on stderr. Tokens may
 * come from a pull before it.
 * @throws PullError as `copyImage` and `throughFile` do
 */
export async function copyWithProgress(
  image: string,
  destination: CopyDestination,
  options: OptionValues,
  signal: AbortSignal,
  { shared, stages }: SharedState = {},
): Promise<CopyResult> {
  const renderer = await createRenderer(options, process.stderr, 'at the destination');
  const allPlatforms = options['all-platforms'] === true;
  const copyTo = (target: CopyOptions['destination']) =>
    withRenderer(renderer, (onEvent) =>
      copyImage(image, {
        ...pullOptionsOf(options, process.env),
        ...(shared && { shared }),
        ...(stages && { stages }),
        destination: target,
        allPlatforms,
        signal,
        onEvent,
      }),
    );
  if (!isStdout(destination)) return copyTo(destination);
  return throughFile((path) => copyTo({ ...destination, path }), signal);
}

const write = promisify(writeFile);

const STDOUT = 1;

/**
 * Where large temporary files go without TMPDIR, as for podman and skopeo: /tmp is often memory.
 */
const TEMPORARY = '/var/tmp';

/** Size of one read and write. */
const BLOCK_BYTES = 2 ** 20;

/** Pause before a full pipe is tried again; the 64 KiB of a pipe drain in less. */
const FULL_PIPE_MS = 1;

/**
 * Lets `make` write a file into a new temporary directory that only this user may enter, then sends
 * the complete file to the standard output: a reader never gets the beginning of an archive that
 * fails verification. It is deleted before it is sent, so that nothing stays behind.
 * @throws PullError `store-denied` when no such directory can be made, `store-broken` when the file
 *   cannot be read or written on; what
 *   `make` throws; the reason of an abort
 */
export async function throughFile<T>(make: (path: string) => Promise<T>, signal: AbortSignal): Promise<T> {
  const holder = process.env['TMPDIR'] || TEMPORARY;
  const directory = await mkdtemp(join(holder, 'zpull-')).catch((error: Error) => {
    throw new PullError('store-denied', `could not make a directory in ${holder}: ${error.message}`, {
      hint: 'set TMPDIR to a directory for large temporary files',
      cause: error,
    });
  });
  let file: FileHandle | undefined;
  try {
    const path = join(directory, 'archive');
    const result = await make(path);
    file = await open(path);
    await rm(directory, { recursive: true });
    await Promise.race([abortOf(signal), send(file, signal)]);
    return result;
  } finally {
    await file?.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** A write to a pipe without a reader never ends: the abort does not wait for it. */
function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const abort = () => reject(signal.reason);
    // It may have been aborted while the archive was written.
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}

/**
 * Writes a file to the standard output, by calls that wait in libuv's pool. A reader that closes
 * the pipe ends it quietly.
 */
async function send(file: FileHandle, signal: AbortSignal): Promise<void> {
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  try {
    for (let at = 0; !signal.aborted; ) {
      const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, at);
      if (bytesRead === 0) return;
      for (let done = 0; done < bytesRead && !signal.aborted; ) {
        done += await writeSome(block.subarray(done, bytesRead));
      }
      at += bytesRead;
    }
  } catch (error) {
    signal.throwIfAborted();
    const { code = '', message } = error as NodeJS.ErrnoException;
    if (code === 'EPIPE') return;
    throw new PullError('store-broken', `could not write to the standard output: ${message}`, {
      hint: 'make room where the output goes, then run the same command again',
      cause: error,
    });
  }
}

async function writeSome(bytes: Buffer): Promise<number> {
  try {
    return (await write(STDOUT, bytes)).bytesWritten;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    await sleep(FULL_PIPE_MS);
    return 0;
  }
}
