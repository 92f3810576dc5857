import { toFailure } from '../../src/format/error.js';
import type { FetchOpaqueResult, FetchOpaqueTask } from '../../src/pool/messages.js';
import { fullBlobReceiver } from '../fetch/full-blob.js';
import { beginRange, rangeClient } from '../fetch/range-client.js';
import { openBlobPart } from './blob-writers.js';

/**
 * Fetches a range of a blob and writes it without decoding. The next pull finds what was received
 * before a failure.
 */
export async function fetchOpaque(task: FetchOpaqueTask): Promise<FetchOpaqueResult> {
  const { blob, blobStart, blobEnd, control } = task;
  const { fetchRange } = await rangeClient();
  const part = openBlobPart(blob, blobStart, blobEnd);
  const { pack, packOffset } = part;
  const { events, totals, sender, stop, close } = beginRange(control);
  const fullBlob = fullBlobReceiver(blob);
  try {
    const range = { blob, start: blobStart, end: blobEnd, fullBlobInstead: fullBlob.begin };
    await fetchRange({ ...range, onBytes: part.write, events, stop });
  } catch (error) {
    return { pack, packOffset, sender: sender(), ...totals, failure: toFailure(error) };
  } finally {
    close();
    part.close();
    fullBlob.close();
  }
  const stopped = stop.end === undefined ? {} : { stoppedAt: stop.end };
  return { pack, packOffset, sender: sender(), ...totals, ...stopped };
}
