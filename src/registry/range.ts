import { PullError } from '../format/error.js';
import { rangeHeader } from './content-range.js';
import { describeNetworkError } from './network-error.js';
import { afterAnswer, afterFailure, countFruitless, planBody, single } from './range-answer.js';
import type { Progress, RangeClient, RangeJob, RangeTotals } from './range-client.js';
import { isRedirect, nextHop } from './redirect.js';
import { requestLine } from './request-line.js';
import { type Outcome, transfer } from './transfer.js';

/** Redirect targets remembered; an image has at most some hundred layers. */
const MAX_TARGETS = 1024;

/**
 * Fetches bytes `[start, end)` of a blob, going on from the first byte not yet received after every failure of the
 * network; a received byte is never asked for again.
 * @throws PullError `blob-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`, `answer-unexpected`,
 *   `metadata-malformed` (the blob has another size than its manifest says); what `events.miss` and `onBytes` throw
 */
export async function fetchRange(client: RangeClient, job: RangeJob): Promise<RangeTotals> {
  const { blob, start, end, events } = job;
  if (!(start >= 0 && start <= end && end <= blob.sizeBytes)) {
    throw new PullError('internal', `range [${start}, ${end}) is not inside ${blob.digest}`);
  }
  const progress: Progress = {
    next: start,
    requests: 0,
    receivedBytes: 0,
    fruitless: 0,
    authorization: start < end && blob.anonymous !== true ? await events.authorization() : undefined,
    renewals: 0,
    waited: 0,
    repeated: false,
  };
  while (progress.next < end) await askOnce(client, job, progress);
  return { requests: progress.requests, receivedBytes: progress.receivedBytes };
}

/** One GET with its redirects, and what follows from its outcome. Returns when it is time for the next. */
async function askOnce(client: RangeClient, job: RangeJob, progress: Progress): Promise<void> {
  const { blob, events } = job;
  const remembered = client.targets.get(blob.url);
  const { next, receivedBytes } = progress;
  const startedMs = performance.now();
  progress.requests++;
  events.requested();
  const { outcome, url } = await follow(client, job, progress, remembered ?? new URL(blob.url));
  const bytes = progress.receivedBytes - receivedBytes;
  if (events.answered !== undefined) events.answered(describe(job, outcome, { url, next, startedMs, bytes }));
  if (outcome.kind === 'broken') {
    countFruitless(progress, next, receivedBytes, url);
    await afterFailure(client, job, progress, outcome, url);
    return;
  }
  progress.repeated = false;
  if (outcome.kind === 'answer') {
    await afterAnswer(client, job, progress, outcome, url, remembered !== undefined);
  }
}

/** One line for who watches. */
function describe(
  job: RangeJob,
  outcome: Outcome,
  asked: { url: URL; next: number; startedMs: number; bytes: number },
): string {
  const { url, next, startedMs, bytes } = asked;
  const range = rangeHeader(next, job.end);
  const broken = outcome.kind === 'broken';
  const failure = broken ? { failure: describeNetworkError(outcome.error, url.host).message } : {};
  const { status } = outcome;
  return requestLine({ method: 'GET', url, range, status, bytes, startedMs, ...failure }, performance.now());
}

/** Sends the request and follows redirects; Authorization goes to the registry only, and not after leaving it. */
async function follow(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  start: URL,
): Promise<{ outcome: Outcome; url: URL }> {
  const registry = new URL(job.blob.url).origin;
  let trusted = true;
  let url = start;
  for (let hop = 1; ; hop++) {
    trusted &&= url.origin === registry;
    const outcome = await send(client, job, progress, url, trusted ? progress.authorization : undefined);
    if (outcome.kind !== 'answer' || !isRedirect(outcome.status)) {
      if (outcome.kind === 'whole' && hop > 1) remember(client, job.blob.url, url);
      return { outcome, url };
    }
    url = nextHop(url, single(outcome.headers['location']), hop);
  }
}

function remember(client: RangeClient, blobUrl: string, target: URL): void {
  if (client.targets.size >= MAX_TARGETS) client.targets.clear();
  client.targets.set(blobUrl, target);
}

async function send(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  url: URL,
  authorization: string | undefined,
): Promise<Outcome> {
  const { userAgent, idleTimeoutMs } = client.options;
  const headers: Record<string, string> = {
    range: rangeHeader(progress.next, job.end),
    'accept-encoding': 'identity',
  };
  if (userAgent !== undefined) headers['user-agent'] = userAgent;
  if (authorization !== undefined) headers['authorization'] = authorization;
  const lane = await client.lanes.take(url.origin);
  try {
    return await transfer(
      lane,
      { path: url.pathname + url.search, headers, idleTimeoutMs },
      {
        plan: (status, answerHeaders) => {
          progress.renewals = 0;
          progress.waited = 0;
          return planBody(job, progress.next, url, status, answerHeaders);
        },
        received: (bytes) => {
          progress.receivedBytes += bytes;
          job.events.received(bytes);
        },
        take: (chunk) => {
          progress.next += chunk.length;
          return job.onBytes(chunk);
        },
      },
    );
  } finally {
    client.lanes.give(lane);
  }
}
