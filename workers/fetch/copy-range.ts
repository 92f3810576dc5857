import { constants } from 'node:fs';
import { noteRange } from '../../src/copy/range-journal.js';
import { openOwnFile } from '../../src/files/guarded-directory.js';
import { closeWritten, wrapFsError, writeFully } from '../../src/files/storage-error.js';
import { PullError, toFailure } from '../../src/format/error.js';
import type { BlobFile, CopyRangeResult, CopyRangeTask } from '../../src/pool/messages.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { unwatch, watch } from '../context.js';
import { CheckpointedWriter } from './checkpointed-writer.js';
import { beginRange, rangeClient } from './range-client.js';

/**
 * Fetches a range of a blob, or the full blob if a server sends that instead, into an existing file
 * or into nothing, without decoding. After a failure, the file's journal has what was received, so
 * that the next copy resumes there.
 */
export async function copyRange(task: CopyRangeTask): Promise<CopyRangeResult> {
  const { blob, start, end, into, control } = task;
  const { fetchRange } = await rangeClient();
  const sink = into === undefined ? NOTHING : openSink(into);
  let receivesFullBlob = false;
  const fullBlobInstead = () => {
    receivesFullBlob = true;
    return sink.begin(0);
  };
  const { events, totals, sender, stop, close } = beginRange(control);
  const range = { blob, start, end, onBytes: sink.begin(start), events, stop };
  try {
    await fetchRange({ ...range, fullBlobInstead });
  } catch (error) {
    const isFullBlob = receivesFullBlob && error instanceof PullError && error.code === 'unsupported';
    return { ...totals, sender: sender(), isFullBlob, ...(!isFullBlob && { failure: toFailure(error) }) };
  } finally {
    close();
    sink.close();
  }
  return {
    ...totals,
    sender: sender(),
    isFullBlob: false,
    ...(stop.end !== undefined && { stoppedAt: stop.end }),
  };
}

/** Takes the bytes of a blob. */
interface Sink {
  /** Returns what takes the bytes from an offset in the blob on. */
  begin(blobStart: number): (chunk: Buffer) => void;
  /** @throws PullError as `storageError` */
  close(): void;
}

const NOTHING: Sink = { begin: () => () => {}, close() {} };

/** @throws PullError as `storageError` */
function openSink({ file, position, journal }: BlobFile): Sink {
  const { path } = file;
  const fd = wrapFsError(`open ${path}`, () => openOwnFile(file, constants.O_WRONLY));
  const writers: CheckpointedWriter[] = [];
  return {
    begin(blobStart) {
      const base = position + blobStart;
      const writer = new CheckpointedWriter({
        write(chunk, at) {
          const started = threadClock.start();
          writeFully(fd, path, chunk, base + at);
          threadClock.end('write', started, chunk.length);
        },
        note(from, to) {
          const started = threadClock.start();
          noteRange(journal, { start: base + from, end: base + to });
          threadClock.end('write', started, 0);
        },
      });
      writers.push(writer);
      watch(writer);
      return writer.write;
    },
    close() {
      for (const writer of writers) unwatch(writer);
      closeWritten(fd, path);
      for (const writer of writers) writer.note();
    },
  };
}
