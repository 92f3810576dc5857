import { PullError } from '../format/error.js';
import { rangeHeader } from './content-range.js';
import { NO_ENDPOINT } from './endpoint-choice.js';
import { describeNetworkError } from './network-error.js';
import { afterAnswer, afterFailure, countFruitless, planBody, untilWelcome } from './range-answer.js';
import type { Progress, RangeClient, RangeJob, RangeTotals } from './range-client.js';
import { isRedirect, nextHop } from './redirect.js';
import { requestLine, type ToldRequest } from './request-line.js';
import { chooseEndpoint, passOn } from './take-over.js';
import { type Outcome, type Sink, single, transfer } from './transfer.js';
import { judge } from './verdict.js';

/**
 * Fetches bytes `[start, end)` of a blob, going on from the first byte not yet received after every failure of the
 * network; a received byte is never asked for again.
 * @throws PullError `blob-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`, `answer-unexpected`,
 *   `metadata-malformed` (the blob has another size than its manifest says); what `events.miss` and `onBytes` throw
 */
export async function fetchRange(client: RangeClient, job: RangeJob): Promise<RangeTotals> {
  const { blob, start, end, onSize } = job;
  if (!(start >= 0 && start <= end && (end <= blob.sizeBytes || onSize !== undefined))) {
    throw new PullError('internal', `range [${start}, ${end}) is not inside ${blob.digest}`);
  }
  const progress: Progress = {
    endpoint: NO_ENDPOINT,
    url: blob.url,
    tried: new Set(),
    next: start,
    requests: 0,
    receivedBytes: 0,
    fruitless: 0,
    authorization: undefined,
    renewals: 0,
    waited: 0,
    repeated: false,
    renewing: false,
    takerFailed: false,
  };
  try {
    if (start < end) await chooseEndpoint(client, job, progress);
    while (progress.next < end) await askOrPassOn(client, job, progress);
  } finally {
    client.choice.leave(progress.endpoint);
  }
  return { requests: progress.requests, receivedBytes: progress.receivedBytes };
}

async function askOrPassOn(client: RangeClient, job: RangeJob, progress: Progress): Promise<void> {
  try {
    await untilWelcome(client, job, progress);
    await askOnce(client, job, progress);
  } catch (error) {
    if (!(await passOn(client, job, progress, error))) throw error;
  }
}

/** One GET with its redirects, and what follows from its outcome. Returns when it is time for the next. */
async function askOnce(client: RangeClient, job: RangeJob, progress: Progress): Promise<void> {
  const remembered = progress.renewing ? undefined : await client.targets.get(progress.url);
  const { next, receivedBytes } = progress;
  progress.requests++;
  job.events.requested();
  const { outcome, url, tell } = await follow(
    client,
    job,
    progress,
    remembered ?? new URL(progress.url),
  ).finally(() => endRenewal(client, progress));
  const place = { url, remembered };
  if (progress.next > next) progress.tried.clear();
  if (outcome.kind === 'broken') {
    const failure = describeNetworkError(outcome.error, url.host);
    tell(failure.final ? { givenUp: failure.message } : { again: failure.message });
    countFruitless(progress, next, receivedBytes, url);
    await afterFailure(client, job, progress, outcome, failure, place);
    return;
  }
  progress.repeated = false;
  if (outcome.kind === 'answer') {
    const chance = { nowMs: Date.now(), random: Math.random() };
    const verdict = judge(job, progress, outcome, place, chance);
    tell(verdict);
    await afterAnswer(client, job, progress, outcome, verdict, place);
  } else {
    tell({});
    client.choice.succeeded(progress.endpoint);
  }
}

/** The registry has been asked for a new target, and the others need not wait for the body. */
function endRenewal(client: RangeClient, progress: Progress): void {
  if (!progress.renewing) return;
  progress.renewing = false;
  client.targets.renewed(progress.url);
}

/** One request that is over. */
interface Asked {
  readonly outcome: Outcome;
  readonly url: URL;
  /** Makes a line of it for who watches, once it is known what follows. */
  tell(follows: Pick<ToldRequest, 'again' | 'givenUp'>): void;
}

/** Sends the request and follows redirects; Authorization goes to the registry only, and not after leaving it. */
async function follow(client: RangeClient, job: RangeJob, progress: Progress, start: URL): Promise<Asked> {
  const registry = new URL(progress.url).origin;
  let trusted = true;
  let url = start;
  for (let hop = 1; ; hop++) {
    trusted &&= url.origin === registry;
    const asked = await send(client, job, progress, url, trusted ? progress.authorization : undefined);
    const { outcome } = asked;
    if (outcome.kind !== 'answer' || !isRedirect(outcome.status)) return asked;
    asked.tell({});
    url = nextHop(url, single(outcome.headers['location']), hop);
  }
}

async function send(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  url: URL,
  authorization: string | undefined,
): Promise<Asked> {
  const { userAgent, idleTimeoutMs } = client.options;
  const range = rangeHeader(progress.next, job.end);
  const headers: Record<string, string> = { range, 'accept-encoding': 'identity' };
  if (userAgent !== undefined) headers['user-agent'] = userAgent;
  if (authorization !== undefined) headers['authorization'] = authorization;
  const lanes = client.lanesTo(progress.endpoint, progress.url);
  const lane = await lanes.take(url.origin);
  const { receivedBytes } = progress;
  const startedMs = performance.now();
  let status = 0;
  const tell: Asked['tell'] = ({ again, givenUp }) => {
    const bytes = progress.receivedBytes - receivedBytes;
    const told = { method: 'GET', url, range, status, bytes, startedMs, again, givenUp };
    job.events.answered?.(requestLine(told, performance.now()));
  };
  const request = { path: url.pathname + url.search, headers, idleTimeoutMs };
  const judged = (answered: number) => {
    status = answered;
  };
  try {
    const outcome = await transfer(lane, request, sinkFor(client, job, progress, url, judged));
    status = outcome.status;
    return { outcome, url, tell };
  } catch (error) {
    tell({ givenUp: error instanceof Error ? error.message : String(error) });
    throw error;
  } finally {
    lanes.give(lane);
  }
}

/** Where the body of an answer goes. `judged` hears of its status before it is looked at, as it may be refused. */
function sinkFor(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  url: URL,
  judged: (status: number) => void,
): Sink {
  let allowed: Promise<void> | undefined;
  return {
    plan: (status, headers) => {
      judged(status);
      progress.renewals = 0;
      progress.waited = 0;
      const plan = planBody(job, progress.next, url, status, headers);
      if (url.href !== progress.url) client.targets.found(progress.url, url);
      endRenewal(client, progress);
      return plan;
    },
    received: (bytes) => {
      progress.receivedBytes += bytes;
      job.events.received(bytes, progress.endpoint);
      allowed = job.events.limit?.(bytes);
    },
    take: (chunk) => {
      progress.next += chunk.length;
      return both(hand(job, progress, chunk), allowed);
    },
  };
}

/** Hands bytes on; notes when that fails, since it is no endpoint's fault. */
function hand(job: RangeJob, progress: Progress, chunk: Buffer): void | Promise<void> {
  const failed = () => {
    progress.takerFailed = true;
  };
  try {
    const busy = job.onBytes(chunk);
    busy?.catch(failed);
    return busy;
  } catch (error) {
    failed();
    throw error;
  }
}

/** When both have resolved; undefined when there is nothing to wait for. */
function both(first: void | Promise<void>, second: Promise<void> | undefined): void | Promise<void> {
  if (second === undefined) return first;
  return first === undefined ? second : Promise.all([first, second]).then(() => {});
}
