import type { FetchRawResult, FetchRawTask } from '../src/pool/messages.js';
import { countingEvents, rangeClient } from './range-client.js';
import { RawReceiver } from './raw-receiver.js';
import { giveRawWriter, takeRawWriter } from './raw-writers.js';
import { unwatch, watch } from './ticker.js';

/** Fetches a range of a blob and writes it as it is. What came before a failure is noted and found by the next pull. */
export async function fetchRaw(task: FetchRawTask): Promise<FetchRawResult> {
  const { blob, blobStart, blobEnd } = task;
  const { fetchRange, client } = await rangeClient();
  const { writer, blobDigest } = takeRawWriter(blob.digest);
  try {
    const region = writer.reserve(blobEnd - blobStart);
    const receiver = new RawReceiver({ writer, region, blobDigest, blobStart });
    const { events, totals, sender } = countingEvents();
    watch(receiver);
    try {
      await fetchRange(client, { blob, start: blobStart, end: blobEnd, onBytes: receiver.take, events });
    } finally {
      unwatch(receiver);
      receiver.note();
    }
    return { pack: region.pack, packOffset: region.start, sender: sender(), ...totals };
  } finally {
    giveRawWriter(blob.digest);
  }
}
