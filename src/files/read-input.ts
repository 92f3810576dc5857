import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { GrowingBuffer } from '../format/arrays.js';

/**
 * Configuration files with all their comments have some KiB; one that lists a thousand registries
 * has 100.
 */
export const MAX_CONFIGURATION_FILE_BYTES = 2 ** 20;

/** The writer of a pipe may query a cloud service, which takes seconds, or wait for a password. */
export const INPUT_LIMIT_MS = 60_000;

/** Interval between attempts to read an empty pipe. */
const POLL_MS = 20;

const BLOCK_BYTES = 64 * 1024;

/**
 * The bytes read, or why there are none. `problem` continues a sentence that begins with the path:
 * "is a directory".
 */
export type Input = { readonly bytes: Buffer } | Unread;

interface Unread {
  /** Does not exist; may not be read by this user; or exists and is no file to read. */
  readonly kind: 'absent' | 'unreadable' | 'unfit';
  readonly problem: string;
}

/**
 * Reads a regular file, through links too. A pipe, device, socket or directory is neither waited
 * for nor read, except for the null device, which is an empty file to all programs.
 */
export function readRegularFile(path: string, maxBytes: number): Input {
  const opened = open(path, false);
  if (typeof opened !== 'number') return opened;
  try {
    const gathered = new GrowingBuffer();
    for (;;) {
      const chunk = readSome(opened);
      if (chunk === undefined) return unfit('does not end');
      if (chunk.length === 0) return { bytes: gathered.bytes() };
      gathered.add(chunk);
      if (gathered.length > maxBytes) return tooLarge(maxBytes);
    }
  } catch (error) {
    return failed(error);
  } finally {
    closeSync(opened);
  }
}

/**
 * Pipes whose bytes are kept: a command has two at most. A process that pulls for a long time must
 * not collect the secrets of all.
 */
const MAX_KEPT_PIPES = 16;

/**
 * The bytes of the last pipes, by identity: a pipe can be read only once, however many pulls need
 * it.
 */
const pipes = new Map<string, Promise<Input>>();

/**
 * As `readRegularFile`, for a path that the user states: reads pipes too (`<(…)`, /dev/stdin,
 * /dev/fd/N), once as long as it is one of the last few, to the end and for a minute at most.
 * `signal` ends the wait.
 */
export async function readFileOrPipe(path: string, maxBytes: number, signal?: AbortSignal): Promise<Input> {
  const stats = statOf(path);
  if (stats?.isFIFO() !== true) return readRegularFile(path, maxBytes);
  // The inode of a removed pipe is reused by the next.
  const key = `${stats.dev}:${stats.ino}:${stats.birthtimeMs}`;
  const reading = pipes.get(key) ?? readPipe(path, maxBytes, signal);
  pipes.set(key, reading);
  const read = await reading;
  if (!('bytes' in read)) pipes.delete(key);
  const [oldest] = pipes.keys();
  if (pipes.size > MAX_KEPT_PIPES && oldest !== undefined) pipes.delete(oldest);
  return read;
}

async function readPipe(path: string, maxBytes: number, signal: AbortSignal | undefined): Promise<Input> {
  const opened = open(path, true);
  if (typeof opened !== 'number') return opened;
  const gathered = new GrowingBuffer();
  const endMs = performance.now() + INPUT_LIMIT_MS;
  try {
    for (;;) {
      const chunk = readSome(opened);
      if (chunk?.length === 0) break;
      if (chunk !== undefined) gathered.add(chunk);
      if (gathered.length > maxBytes) return tooLarge(maxBytes);
      if (performance.now() > endMs)
        return unfit(`is a pipe that does not end within ${INPUT_LIMIT_MS / 1000} s`);
      if (chunk === undefined) await sleep(POLL_MS, undefined, { signal });
    }
  } catch (error) {
    return signal?.aborted === true ? unfit('is a pipe that was not waited for') : failed(error);
  } finally {
    closeSync(opened);
  }
  return gathered.length > 0 ? { bytes: gathered.bytes() } : unfit('is a pipe that nobody writes to');
}

/** Returns a descriptor that never blocks, or why there is none. */
function open(path: string, pipeIsFit: boolean): number | Input {
  let fd: number | undefined;
  try {
    // Opening some devices has side effects.
    const misfit = misfitOf(statSync(path), pipeIsFit);
    if (misfit !== undefined) return misfit;
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    const changed = misfitOf(fstatSync(fd), pipeIsFit);
    if (changed === undefined) return fd;
    closeSync(fd);
    return changed;
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    return failed(error);
  }
}

function misfitOf(stats: Stats, pipeIsFit: boolean): Input | undefined {
  if (stats.isFile() || (pipeIsFit && stats.isFIFO())) return undefined;
  if (stats.isDirectory()) return unfit('is a directory');
  if (stats.isCharacterDevice() && stats.rdev === statOf('/dev/null')?.rdev)
    return { bytes: Buffer.alloc(0) };
  return unfit('is not a regular file');
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined; // opening it reports why
  }
}

/** Returns the next bytes, none at the end, or undefined if there are none yet. */
function readSome(fd: number): Buffer | undefined {
  const block = Buffer.allocUnsafe(BLOCK_BYTES);
  try {
    return block.subarray(0, readSync(fd, block));
  } catch (error) {
    if (codeOf(error) === 'EAGAIN') return undefined;
    throw error;
  }
}

/** A file's text, without the byte-order mark that editors on Windows put before it. */
export function fileText(bytes: Buffer): string {
  return bytes.toString('utf8').replace(/^\ufeff/, '');
}

function failed(error: unknown): Unread {
  const code = codeOf(error);
  if (code === 'ENOENT' || code === 'ENOTDIR') return { kind: 'absent', problem: 'is not there' };
  return { kind: 'unreadable', problem: `cannot be read (${code})` };
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

function unfit(problem: string): Unread {
  return { kind: 'unfit', problem };
}

function tooLarge(maxBytes: number): Unread {
  return unfit(`is larger than ${maxBytes / 2 ** 20} MiB`);
}
