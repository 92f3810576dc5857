import type { FetchSpanResult, FetchSpanTask } from '../src/pool/messages.js';
import { packWriter } from './context.js';
import { rangeClient, rangeEvents } from './range-client.js';
import { SpanReceiver, WrongStream } from './span-receiver.js';

/** How often waiting frames are looked at, in milliseconds. */
const TICK_MS = 100;

const receivers = new Set<SpanReceiver>();
let ticking: NodeJS.Timeout | undefined;

/** Fetches one span, decodes, checks and writes it; says how far it proved right. */
export async function fetchSpan(task: FetchSpanTask): Promise<FetchSpanResult> {
  const { fetchRange, client } = await rangeClient();
  const region = packWriter().reserve(task.tarEnd - task.tarStart);
  const receiver = new SpanReceiver(task, region);
  watch(receiver);
  let fetchedBytes = 0;
  let requests = 0;
  // Of several endpoints that sent parts of the span, the first in the list: mirrors stand before the registry.
  let sender = client.options.endpoints.length;
  const events = {
    ...rangeEvents,
    received(bytes: number, endpoint: number): void {
      fetchedBytes += bytes;
      sender = Math.min(sender, endpoint);
      rangeEvents.received(bytes, endpoint);
    },
    requested(): void {
      requests += 1;
    },
  };
  try {
    await fetchRange(client, {
      blob: task.blob,
      start: task.blobStart,
      end: task.blobEnd,
      onBytes: receiver.take,
      events,
    });
    await receiver.finish();
  } catch (error) {
    if (!(error instanceof WrongStream)) throw error;
  } finally {
    unwatch(receiver);
    await receiver.close();
  }
  const { goodTarBytes, wrong } = receiver;
  if (wrong !== undefined) client.choice.lacks(sender, task.blob.digest);
  const result = { pack: region.pack, packOffset: region.start, goodTarBytes, fetchedBytes, requests };
  return wrong === undefined ? result : { ...result, wrong };
}

function watch(receiver: SpanReceiver): void {
  receivers.add(receiver);
  ticking ??= setInterval(() => {
    const now = performance.now();
    for (const each of receivers) each.tick(now);
  }, TICK_MS);
}

function unwatch(receiver: SpanReceiver): void {
  receivers.delete(receiver);
  if (receivers.size > 0) return;
  clearInterval(ticking);
  ticking = undefined;
}
