import { type ErrorCode, PullError } from '../format/error.js';
import { sharedClockMs } from './concurrency.js';
import type { Progress, RangeClient, RangeJob } from './range-client.js';

/** What one endpoint may say while another has the blob. */
const PASSED_ON: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'network-hopeless',
  'redirect-refused',
  'answer-unexpected',
  'metadata-malformed',
]);

/**
 * Turns to the endpoint that is to be asked next, with its own token. One that cannot even be opened is passed over. A foreign
 * blob has one place and no token.
 * @returns false when every endpoint has failed since the last byte
 * @throws PullError of the last endpoint that could not be opened, when none could or none is left that may have the blob
 */
export async function chooseEndpoint(
  client: RangeClient,
  { blob, events }: RangeJob,
  progress: Progress,
): Promise<boolean> {
  if (blob.anonymous === true) return progress.tried.size === 0;
  const isFirst = progress.tried.size === 0;
  let failure: PullError | undefined;
  for (;;) {
    const endpoint = client.choice.next(blob.digest, progress.tried, sharedClockMs());
    if (endpoint === undefined) {
      if (failure !== undefined && (isFirst || !client.choice.mayBeHad(blob.digest))) throw failure;
      return false;
    }
    client.choice.enter(endpoint);
    try {
      const url = endpoint === 0 ? blob.url : await urlAt(client, blob.digest, endpoint, events);
      progress.authorization = await events.authorization(undefined, endpoint);
      client.choice.leave(progress.endpoint);
      progress.endpoint = endpoint;
      progress.url = url;
      progress.renewals = 0;
      progress.repeated = false;
      return true;
    } catch (error) {
      client.choice.leave(endpoint);
      if (!(error instanceof PullError)) throw error;
      failure = error;
      progress.tried.add(endpoint);
      if (error.code === 'network-hopeless') client.choice.failed(endpoint, sharedClockMs());
      else client.choice.lacks(endpoint, blob.digest);
    }
  }
}

async function urlAt(
  client: RangeClient,
  digest: string,
  endpoint: number,
  events: RangeJob['events'],
): Promise<string> {
  const origin = await events.originOf(endpoint);
  return `${origin}/v2/${client.options.endpoints[endpoint]!.repository}/blobs/${digest}`;
}

/** Whether another endpoint goes on from the first byte not received, since this one cannot now, or not for `waitMs`. */
export function takeOver(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  waitMs?: number,
): Promise<boolean> {
  client.choice.failed(progress.endpoint, sharedClockMs(), waitMs);
  progress.tried.add(progress.endpoint);
  return chooseEndpoint(client, job, progress);
}

/** A failure of the network: no miss while another endpoint is left to try. */
export async function missOrTakeOver(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  message: string,
): Promise<void> {
  if (await takeOver(client, job, progress)) return;
  await job.events.miss(message);
  progress.tried.clear();
  await chooseEndpoint(client, job, progress);
}

/**
 * Whether another endpoint goes on after one refused the blob, or answered as none should. Where others failed that may
 * have it, that is a miss; where they asked to wait, they are waited for.
 */
export async function passOn(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  error: unknown,
): Promise<boolean> {
  const { blob, events } = job;
  if (progress.takerFailed || !(error instanceof PullError) || !PASSED_ON.has(error.code)) return false;
  if (blob.anonymous === true) return false;
  client.choice.lacks(progress.endpoint, blob.digest);
  progress.tried.add(progress.endpoint);
  if (await chooseEndpoint(client, job, progress)) return true;
  if (!client.choice.mayBeHad(blob.digest)) return false;
  if (!client.choice.isToBeWaitedFor(blob.digest, sharedClockMs())) await events.miss(error.message);
  progress.tried.clear();
  return chooseEndpoint(client, job, progress);
}
