import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import type { BodyPlan } from './body.js';
import { parseContentLength, parseContentRange } from './content-range.js';
import type { NetworkFault } from './network-error.js';
import type { Wait } from './patience.js';
import type { BlobSource, Progress, RangeClient, RangeJob } from './range-client.js';
import { refusal } from './refusal.js';
import { bookWait } from './retry-after.js';
import { missOrTakeOver, takeOver } from './take-over.js';
import { type Headers, type Outcome, single } from './transfer.js';
import type { Place, Verdict } from './verdict.js';

/**
 * Answers in a row that brought bytes but none that was new: a server that ignores ranges and always breaks off
 * before the wanted part feeds karma for ever.
 */
const MAX_FRUITLESS = 5;

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
  { error, unanswered }: Outcome & { kind: 'broken' },
  { message, hint, final }: NetworkFault,
  { url, remembered }: Place,
): Promise<void> {
  if (unanswered && !progress.repeated) {
    progress.repeated = true;
    return;
  }
  progress.repeated = false;
  client.targets.forget(progress.url, remembered ?? url);
  if (!final) return missOrTakeOver(client, job, progress, message);
  throw new PullError('network-hopeless', message, { ...(hint === undefined ? {} : { hint }), cause: error });
}

/** Does what the verdict says: wait, renew, count a miss, or give up. */
export async function afterAnswer(
  client: RangeClient,
  job: RangeJob,
  progress: Progress,
  answer: Outcome & { kind: 'answer' },
  verdict: Verdict,
  { url, remembered }: Place,
): Promise<void> {
  switch (verdict.next) {
    case 'wait':
      return wait(client, job, progress, { host: url.host, waitMs: verdict.waitMs });
    case 'renew-target':
      progress.renewing = await client.targets.expired(progress.url, verdict.refused);
      return;
    case 'miss':
      client.targets.forget(progress.url, remembered ?? url);
      return missOrTakeOver(client, job, progress, verdict.message);
    case 'renew-token':
      if (!(await hasNewToken(job, progress))) throw refusalOf(job, progress, answer, url);
      return;
    case 'give-up':
      throw refusalOf(job, progress, answer, url);
  }
}

/** Waits, unless another endpoint can be asked meanwhile. */
async function wait(client: RangeClient, job: RangeJob, progress: Progress, told: Wait): Promise<void> {
  if (await takeOver(client, job, progress, told.waitMs)) return;
  progress.waited += 1;
  bookWait(client.options.waits, told.waitMs, Date.now(), told.host);
  const goOn = job.events.pause(told);
  await sleep(told.waitMs + Math.random() * SPREAD_MS).finally(goOn);
  progress.tried.clear();
}

async function hasNewToken({ events }: RangeJob, progress: Progress): Promise<boolean> {
  progress.renewals += 1;
  const refused = progress.authorization;
  progress.authorization = await events.authorization(refused ?? '', progress.endpoint);
  return progress.authorization !== undefined && progress.authorization !== refused;
}

function refusalOf(
  { blob }: RangeJob,
  progress: Progress,
  { status, headers, body }: Outcome & { kind: 'answer' },
  url: URL,
): PullError {
  const { sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  if (status === 416 && sizeBytes !== undefined && sizeBytes !== blob.sizeBytes)
    return wrongSize(blob, url, sizeBytes);
  const { pathname } = new URL(progress.url);
  const repository = pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  return refusal(status, { host: url.host, repository, name: blob.digest, kind: 'blob' }, body);
}
