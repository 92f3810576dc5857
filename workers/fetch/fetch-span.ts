import { type Failure, toFailure } from '../../src/format/error.js';
import { findCutPoint } from '../../src/format/layer-table.js';
import type { FetchSpanResult, FetchSpanTask } from '../../src/pool/messages.js';
import { packWriter, unwatch, watch } from '../context.js';
import { fullBlobReceiver } from './fetch-opaque.js';
import { frameDecoder } from './frame-decoder.js';
import { decodeMembers } from './member-walker.js';
import { beginRange, rangeClient } from './range-client.js';
import { SpanReceiver, WrongStream } from './span-receiver.js';

/** As from a socket. */
const CHUNK_BYTES = 64 * 1024;

/** Fetches one span, decodes, checks and writes it. The result says which part of it is good. */
export async function fetchSpan(task: FetchSpanTask): Promise<FetchSpanResult> {
  const { fetchRange, choice } = await rangeClient();
  const decode = task.table.compression === 'zstd' ? await frameDecoder() : decodeMembers;
  const region = packWriter().reserve(task.tarEnd - task.tarStart);
  const receiver = new SpanReceiver(task, region, decode);
  watch(receiver);
  const endFor = (next: number) => findCutPoint(task.table, task, next)?.blobAt ?? task.blobEnd;
  const { events, totals, sender, stop, close } = beginRange(task.control, endFor);
  const fetchEnd = Math.max(
    task.blobStart,
    Math.min(task.blobEnd, task.lastBytes?.blobStart ?? task.blobEnd),
  );
  let end: FetchSpanResult['stopped'];
  const fullBlob = fullBlobReceiver(task.blob);
  let failure: Failure | undefined;
  try {
    await fetchRange({
      blob: task.blob,
      start: task.blobStart,
      end: fetchEnd,
      fullBlobInstead: fullBlob.begin,
      onBytes: receiver.write,
      events,
      stop,
    });
    if (stop.end === undefined || stop.end === fetchEnd) await writeLastBytes(task, fetchEnd, receiver);
    else {
      const edge = findCutPoint(task.table, task, stop.end);
      if (edge !== undefined) end = { blobEnd: edge.blobAt, tarEnd: edge.tarAt };
    }
    await receiver.finish(end);
  } catch (error) {
    if (!(error instanceof WrongStream)) failure = toFailure(error);
  } finally {
    close();
    unwatch(receiver);
    fullBlob.close();
    receiver.close();
  }
  const { goodTarBytes, locations, wrong } = receiver;
  const result = {
    pack: region.pack,
    packOffset: region.start,
    goodTarBytes,
    ...(locations && { locations }),
    ...(end && { stopped: end }),
    ...totals,
  };
  if (failure !== undefined) return { ...result, failure };
  if (wrong === undefined) return result;
  choice.lacks(sender(), task.blob.digest);
  return { ...result, wrong: { ...wrong, elsewhere: choice.mayServe(task.blob.digest) } };
}

/** Writes the bytes from `blobStart` to the end of the span, which came with the metadata. */
async function writeLastBytes(
  { lastBytes, blobEnd }: FetchSpanTask,
  blobStart: number,
  receiver: SpanReceiver,
): Promise<void> {
  if (lastBytes === undefined) return;
  const { buffer } = lastBytes.bytes;
  for (let at = blobStart; at < blobEnd; at += CHUNK_BYTES)
    await receiver.write(Buffer.from(buffer, at - lastBytes.blobStart, Math.min(CHUNK_BYTES, blobEnd - at)));
}
