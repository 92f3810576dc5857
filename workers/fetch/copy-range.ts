import { constants } from 'node:fs';
import { noteRange } from '../../src/copy/range-journal.js';
import { openOwnFile } from '../../src/files/guarded-directory.js';
import { closeWritten, wrapFsError, writeFully } from '../../src/files/storage-error.js';
import { PullError, toFailure } from '../../src/format/error.js';
import type { CopyRangeResult, CopyRangeTask } from '../../src/pool/messages.js';
import { unwatch, watch } from '../ticker.js';
import { CheckpointedWriter } from './checkpointed-writer.js';
import { beginRange, rangeClient } from './range-client.js';

/**
 * Fetches a range of a blob, or the full blob if a server sends that instead, into an existing
 * file, without decoding. After a failure, the file's journal has what was received, so that the
 * next copy resumes there.
 */
export async function copyRange(task: CopyRangeTask): Promise<CopyRangeResult> {
  const { blob, start, end, file, position, journal, control } = task;
  const { path } = file;
  const { fetchRange } = await rangeClient();
  const fd = wrapFsError(`open ${path}`, () => openOwnFile(file, constants.O_WRONLY));
  const receivers: CheckpointedWriter[] = [];
  const begin = (base: number) => {
    const receiver = new CheckpointedWriter({
      write: (chunk, at) => writeFully(fd, path, chunk, base + at),
      note: (from, to) => noteRange(journal, { start: base + from, end: base + to }),
    });
    receivers.push(receiver);
    watch(receiver);
    return receiver.write;
  };
  const { events, totals, sender, stop, close } = beginRange(control);
  const range = { blob, start, end, onBytes: begin(position + start), events, stop };
  try {
    await fetchRange({ ...range, fullBlobInstead: () => begin(position) });
  } catch (error) {
    const isWhole = receivers.length > 1 && error instanceof PullError && error.code === 'unsupported';
    return { ...totals, sender: sender(), isWhole, ...(!isWhole && { failure: toFailure(error) }) };
  } finally {
    close();
    for (const receiver of receivers) unwatch(receiver);
    closeWritten(fd, path);
    for (const receiver of receivers) receiver.note();
  }
  return {
    ...totals,
    sender: sender(),
    isWhole: false,
    ...(stop.end !== undefined && { stoppedAt: stop.end }),
  };
}
