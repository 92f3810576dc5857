import { createHash, randomFillSync, randomUUID } from 'node:crypto';
import { closeSync, fsyncSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { removeFileSync } from '../../src/files/atomic-file.js';
import { NEW_FILE, openFile } from '../../src/files/open-file.js';
import { wrapFsError, writeFully } from '../../src/files/storage-error.js';
import type { MeasuredWork, MeasureHashTask, MeasureWriteTask } from '../../src/pool/messages.js';

/** As the verifier reads and hashes them; they fit the cache of a core, as decoded bytes do. */
const BLOCK_BYTES = 2 ** 20;

/** Hashes some bytes again and again: sha256 takes as long for any. */
export function measureHash({ bytes }: MeasureHashTask): Promise<MeasuredWork> {
  const block = Buffer.alloc(BLOCK_BYTES);
  const hash = createHash('sha256');
  return timed(async () => {
    await inBlocks(bytes, (length) => hash.update(block.subarray(0, length)));
    hash.digest();
    return { bytes };
  });
}

/**
 * Writes random bytes, which no file system can compress. The file has no name, so that nothing of
 * it stays, however the process ends.
 * @throws PullError as `storageError`
 */
export function measureWrite({ directory, bytes }: MeasureWriteTask): Promise<MeasuredWork> {
  const block = randomFillSync(Buffer.allocUnsafeSlow(BLOCK_BYTES));
  const path = join(directory, `.zpull-measure-${randomUUID()}`);
  return timed(async () => {
    const fd = wrapFsError(`create ${path}`, () => openFile(path, NEW_FILE));
    try {
      removeFileSync(path);
      await inBlocks(bytes, (length, at) => writeFully(fd, path, block.subarray(0, length), at));
      wrapFsError(`sync ${path} to the disk`, () => fsyncSync(fd));
    } finally {
      closeSync(fd);
    }
    return { bytes };
  });
}

/** Calls `work` for each block; a thread can be ended between two of them. */
async function inBlocks(bytes: number, work: (length: number, at: number) => void): Promise<void> {
  for (let at = 0; at < bytes; at += BLOCK_BYTES) {
    work(Math.min(BLOCK_BYTES, bytes - at), at);
    await nextTurn();
  }
}

/** Returns the result of `work`, and when it ran. */
export async function timed<T>(work: () => Promise<T>): Promise<T & Omit<MeasuredWork, 'bytes'>> {
  const startedMs = clockMs();
  const result = await work();
  return { ...result, startedMs, endedMs: clockMs() };
}

/** The monotonic clock of the machine, which has the same zero in all threads. */
function clockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
