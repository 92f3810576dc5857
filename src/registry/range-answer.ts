import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import type { BodyPlan } from './body.js';
import { parseContentLength, parseContentRange } from './content-range.js';
import { describeNetworkError } from './network-error.js';
import type { BlobSource, Progress, RangeClient, RangeJob } from './range-client.js';
import { firstErrorMessage, refusal } from './refusal.js';
import { bookWait, waitAfter } from './retry-after.js';
import { missOrTakeOver, takeOver } from './take-over.js';
import type { Headers, Outcome } from './transfer.js';

/**
 * Answers in a row that brought bytes but none that was new: a server that ignores ranges and always breaks off
 * before the wanted part feeds karma for ever.
 */
const MAX_FRUITLESS = 5;

/**
 * Values of the Authorization header tried in a row. What other ranges were given meanwhile is tried before a new
 * one is asked for, and it can have expired as well; so can a new one on a slow link.
 */
const MOST_RENEWALS = 3;

/**
 * What storage says of a signed URL that has expired. A 400 is what S3 and Google Cloud Storage answer (`ExpiredToken`) when it is not
 * the URL but the credentials that signed it.
 */
const REFUSED_TARGET: ReadonlySet<number> = new Set([400, 401, 403, 410]);

/** Ranges that were told to wait at the same time come back within this time, not all at once. */
const SPREAD_MS = 1000;

/** Compares a 200 or 206 with what was asked for (RFC 9110, 15.3.7). */
export function planBody(job: RangeJob, next: number, url: URL, status: number, headers: Headers): BodyPlan {
  const { blob, end } = job;
  const unexpected = (what: string) =>
    new PullError(
      'answer-unexpected',
      `${url.host} answers for bytes ${next} to ${end} of ${blob.digest} with ${what}`,
    );
  const encoding = single(headers['content-encoding']);
  if (encoding !== undefined && encoding !== 'identity') throw unexpected('encoded content');
  const lengthBytes = parseContentLength(single(headers['content-length']));
  if (status === 200) {
    if (lengthBytes !== undefined && lengthBytes !== blob.sizeBytes) throw wrongSize(blob, url, lengthBytes);
    return { skipBytes: next, takeBytes: end - next, exact: end === blob.sizeBytes };
  }
  const answered = parseContentRange(single(headers['content-range']));
  if (answered?.range === undefined) throw unexpected('a part it does not name');
  const { range, sizeBytes } = answered;
  if (sizeBytes !== undefined && sizeBytes !== blob.sizeBytes) throw wrongSize(blob, url, sizeBytes);
  if (range.start !== next || range.end !== end) throw unexpected(`bytes ${range.start} to ${range.end}`);
  if (lengthBytes !== undefined && lengthBytes !== end - next) throw unexpected(`${lengthBytes} bytes`);
  return { skipBytes: 0, takeBytes: end - next, exact: true };
}

function wrongSize(blob: BlobSource, url: URL, sizeBytes: number): PullError {
  const what = Number.isNaN(sizeBytes) ? 'no valid length' : `${sizeBytes} bytes`;
  return new PullError(
    'metadata-malformed',
    `blob ${blob.digest} has ${what} at ${url.host} where its manifest says ${blob.sizeBytes}`,
  );
}

/** Counts an attempt that broke off.
 * @throws PullError `network-hopeless` when several in a row brought bytes but none that was new
 */
export function countFruitless(progress: Progress, next: number, receivedBytes: number, url: URL): void {
  if (progress.next > next) progress.fruitless = 0;
  else if (progress.receivedBytes > receivedBytes) progress.fruitless++;
  if (progress.fruitless < MAX_FRUITLESS) return;
  throw new PullError(
    'network-hopeless',
    `${url.host} ignores ranges and broke off ${MAX_FRUITLESS} times before the part that is missing`,
  );
}

/** A failure of the network: repeated at once if only an old connection died, else a miss. */
export async function afterFailure(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  outcome: Outcome & { kind: 'broken' },
  url: URL,
  remembered: URL | undefined,
): Promise<void> {
  if (outcome.unanswered && !progress.repeated) {
    progress.repeated = true;
    return;
  }
  progress.repeated = false;
  client.targets.forget(progress.url, remembered ?? url);
  const { message, hint, final } = describeNetworkError(outcome.error, url.host);
  if (!final) return missOrTakeOver(client, job, progress, message);
  throw new PullError('network-hopeless', message, {
    ...(hint === undefined ? {} : { hint }),
    cause: outcome.error,
  });
}

/** An answer that is no body: wait, renew, ask the registry for a new target, count a miss, or give up. */
export async function afterAnswer(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  { status, headers, body }: Outcome & { kind: 'answer' },
  url: URL,
  remembered: URL | undefined,
): Promise<void> {
  const { blob, events } = job;
  const registry = new URL(progress.url);
  const told = { status, retryAfter: single(headers['retry-after']) };
  const waitMs = waitAfter(told, progress.waited + 1, Date.now(), Math.random());
  if (waitMs !== undefined) {
    if (await takeOver(client, job, progress, waitMs)) return;
    progress.waited += 1;
    bookWait(client.options.waits, waitMs, Date.now(), url.host);
    const goOn = events.pause({ host: url.host, waitMs });
    await sleep(waitMs + Math.random() * SPREAD_MS).finally(goOn);
    progress.tried.clear();
    return;
  }
  if (remembered !== undefined && REFUSED_TARGET.has(status)) {
    progress.renewing = await client.targets.expired(progress.url, remembered);
    return;
  }
  if (status >= 500) {
    client.targets.forget(progress.url, remembered ?? url);
    const words = firstErrorMessage(body);
    const message = `${url.host} answers ${status}${words === undefined ? '' : `: ${words}`}`;
    return missOrTakeOver(client, job, progress, message);
  }
  const renews = blob.anonymous !== true && progress.renewals < MOST_RENEWALS;
  if (status === 401 && url.origin === registry.origin && renews) {
    progress.renewals += 1;
    const refused = progress.authorization;
    progress.authorization = await events.authorization(refused ?? '', progress.endpoint);
    if (progress.authorization !== undefined && progress.authorization !== refused) return;
  }
  const { sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  if (status === 416 && sizeBytes !== undefined && sizeBytes !== blob.sizeBytes)
    throw wrongSize(blob, url, sizeBytes);
  const repository = registry.pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  throw refusal(status, { host: url.host, repository, name: blob.digest, kind: 'blob' }, body);
}

/** The header's value; its first, if the server sent several. */
export function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0];
}
