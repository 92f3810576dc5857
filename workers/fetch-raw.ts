import { toFailure } from '../src/format/error.js';
import type { FetchRawResult, FetchRawTask } from '../src/pool/messages.js';
import { countingEvents, rangeClient, stopFor } from './range-client.js';
import { rawReceiver } from './raw-receiver.js';
import { giveRawWriter, takeRawWriter } from './raw-writers.js';
import { unwatch, watch } from './ticker.js';
import { wholeBlobTaker } from './whole-blob.js';

/** Fetches a range of a blob and writes it as it is. What came before a failure is noted and found by the next pull. */
export async function fetchRaw(task: FetchRawTask): Promise<FetchRawResult> {
  const { blob, blobStart, blobEnd, control } = task;
  const { fetchRange, client } = await rangeClient();
  const raw = takeRawWriter(blob.digest);
  try {
    const { writer, blobDigest } = raw;
    const region = writer.reserve(blobEnd - blobStart);
    const receiver = rawReceiver({ writer, region, blobDigest, blobStart });
    const { events, totals, sender } = countingEvents(control);
    const { stop, close } = stopFor(control);
    const place = { pack: region.pack, packOffset: region.start };
    const whole = wholeBlobTaker(blob);
    watch(receiver);
    try {
      const range = { blob, start: blobStart, end: blobEnd, wholeInstead: whole.begin };
      await fetchRange(client, { ...range, onBytes: receiver.take, events, stop });
    } catch (error) {
      return { ...place, sender: sender(), ...totals, failure: toFailure(error) };
    } finally {
      close();
      unwatch(receiver);
      receiver.note();
      whole.close();
    }
    const stopped = stop.end === undefined ? {} : { stoppedAt: stop.end };
    return { ...place, sender: sender(), ...totals, ...stopped };
  } finally {
    giveRawWriter(raw);
  }
}
