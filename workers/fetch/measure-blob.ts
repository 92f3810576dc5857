import { PullError } from '../../src/format/error.js';
import type { MeasureBlobResult, MeasureBlobTask } from '../../src/pool/messages.js';
import { countingEvents, rangeClient } from './range-client.js';

/**
 * Returns the size of a blob from the response to a request for its first byte: signed URLs, to
 * which blobs are redirected, often do not allow HEAD.
 * @throws PullError as `fetchRange`; `answer-unexpected` if no endpoint states it
 */
export async function measureBlob({ blob }: MeasureBlobTask): Promise<MeasureBlobResult> {
  const { fetchRange } = await rangeClient();
  const { events, totals } = countingEvents();
  let size: number | undefined;
  const onSize = (sizeBytes: number) => {
    size = sizeBytes;
  };
  await fetchRange({ blob, start: 0, end: 1, onSize, onBytes: () => {}, events });
  if (size === undefined) throw new PullError('internal', `nobody was asked for the size of ${blob.digest}`);
  return { ...totals, sizeBytes: size };
}
