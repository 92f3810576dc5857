import { type Failure, toFailure } from '../src/format/error.js';
import type { FetchSpanResult, FetchSpanTask } from '../src/pool/messages.js';
import { packWriter } from './context.js';
import { countingEvents, rangeClient } from './range-client.js';
import { SpanReceiver, WrongStream } from './span-receiver.js';
import { unwatch, watch } from './ticker.js';
import { wholeBlobTaker } from './whole-blob.js';

/** Fetches one span, decodes, checks and writes it; says how far it proved right. */
export async function fetchSpan(task: FetchSpanTask): Promise<FetchSpanResult> {
  const { fetchRange, client } = await rangeClient();
  const region = packWriter().reserve(task.tarEnd - task.tarStart);
  const receiver = new SpanReceiver(task, region);
  watch(receiver);
  const { events, totals, sender } = countingEvents();
  const whole = wholeBlobTaker(task.blob);
  let failure: Failure | undefined;
  try {
    await fetchRange(client, {
      blob: task.blob,
      start: task.blobStart,
      end: task.blobEnd,
      wholeInstead: whole.begin,
      onBytes: receiver.take,
      events,
    });
    await receiver.finish();
  } catch (error) {
    if (!(error instanceof WrongStream)) failure = toFailure(error);
  } finally {
    unwatch(receiver);
    whole.close();
    await receiver.close();
  }
  const { goodTarBytes, wrong } = receiver;
  const result = { pack: region.pack, packOffset: region.start, goodTarBytes, ...totals };
  if (failure !== undefined) return { ...result, failure };
  if (wrong === undefined) return result;
  client.choice.lacks(sender(), task.blob.digest);
  return { ...result, wrong: { ...wrong, elsewhere: client.choice.mayBeHad(task.blob.digest) } };
}
