import { closeSync, openSync } from 'node:fs';
import type { CopyRangeResult, CopyRangeTask } from '../src/pool/messages.js';
import { onDisk, writeFully } from '../src/store/storage-error.js';
import { countingEvents, rangeClient } from './range-client.js';

/** Fetches a range of a blob into its place in a file that is there. Nothing is decoded or kept. */
export async function copyRange({
  blob,
  start,
  end,
  path,
  position,
}: CopyRangeTask): Promise<CopyRangeResult> {
  const { fetchRange, client } = await rangeClient();
  const fd = onDisk(`open ${path}`, () => openSync(path, 'r+'));
  let at = position + start;
  const { events, totals, sender } = countingEvents();
  try {
    await fetchRange(client, {
      blob,
      start,
      end,
      onBytes: (chunk) => {
        writeFully(fd, path, chunk, at);
        at += chunk.length;
      },
      events,
    });
    return { ...totals, sender: sender() };
  } finally {
    closeSync(fd);
  }
}
