import { constants } from 'node:fs';
import { openOwnFile } from '../src/files/own-file.js';
import type { CopyRangeResult, CopyRangeTask } from '../src/pool/messages.js';
import { noteRange } from '../src/store/range-journal.js';
import { closeWritten, onDisk, writeFully } from '../src/store/storage-error.js';
import { NotedBytes } from './noted-bytes.js';
import { countingEvents, rangeClient } from './range-client.js';
import { unwatch, watch } from './ticker.js';

/**
 * Fetches a range of a blob into its place in a file that is there. Nothing is decoded or kept; what came before a failure is noted
 * in the file's journal, and found by the next copy.
 */
export async function copyRange(task: CopyRangeTask): Promise<CopyRangeResult> {
  const { blob, start, end, file, position, journal } = task;
  const { path } = file;
  const { fetchRange, client } = await rangeClient();
  const fd = onDisk(`open ${path}`, () => openOwnFile(file, constants.O_WRONLY));
  const base = position + start;
  const receiver = new NotedBytes({
    write: (chunk, at) => writeFully(fd, path, chunk, base + at),
    note: (from, to) => noteRange(journal, { start: base + from, end: base + to }),
  });
  const { events, totals, sender } = countingEvents();
  watch(receiver);
  try {
    await fetchRange(client, {
      blob,
      start,
      end,
      wholeInstead: () => undefined,
      onBytes: receiver.take,
      events,
    });
  } finally {
    unwatch(receiver);
    closeWritten(fd, path);
    receiver.note();
  }
  return { ...totals, sender: sender() };
}
