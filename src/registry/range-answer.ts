import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import type { BodyPlan } from './body.js';
import { sharedClockMs } from './concurrency.js';
import { parseContentLength, parseContentRange } from './content-range.js';
import type { NetworkFault } from './network-error.js';
import type { Wait } from './patience.js';
import type { BlobSource, Progress, RangeClient, RangeJob } from './range-client.js';
import { refusal, storageRefusal, unexpectedAnswer } from './refusal.js';
import { bookWait } from './retry-after.js';
import { chooseEndpoint, missOrTakeOver, takeOver } from './take-over.js';
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
    unexpectedAnswer(`${url.host} answers for bytes ${next} to ${end} of ${blob.digest} with ${what}`);
  const encoding = single(headers['content-encoding']);
  if (encoding !== undefined && encoding !== 'identity') throw unexpected('encoded content');
  const lengthBytes = parseContentLength(single(headers['content-length']));
  if (status === 200) {
    checkSize(job, url, lengthBytes);
    return { skipBytes: next, takeBytes: end - next, exact: end === blob.sizeBytes };
  }
  const answered = parseContentRange(single(headers['content-range']));
  if (answered?.range === undefined) throw unexpected('a part it does not name');
  const { range, sizeBytes } = answered;
  checkSize(job, url, sizeBytes);
  if (range.start !== next || range.end !== end) throw unexpected(`bytes ${range.start} to ${range.end}`);
  if (lengthBytes !== undefined && lengthBytes !== end - next) throw unexpected(`${lengthBytes} bytes`);
  return { skipBytes: 0, takeBytes: end - next, exact: true };
}

/** Compares what an answer says of the blob's size with what the manifest says, or passes it on where that says nothing. */
function checkSize({ blob, onSize }: RangeJob, url: URL, sizeBytes: number | undefined): void {
  if (onSize === undefined) {
    if (sizeBytes !== undefined && sizeBytes !== blob.sizeBytes) throw wrongSize(blob, url, sizeBytes);
  } else if (sizeBytes === 0) {
    throw wrongSize(blob, url, sizeBytes);
  } else if (sizeBytes !== undefined && Number.isSafeInteger(sizeBytes)) {
    onSize(sizeBytes);
  } else {
    throw unexpectedAnswer(
      `${url.host} does not say how large ${blob.digest} is, and neither does its manifest`,
    );
  }
}

function wrongSize(blob: BlobSource, url: URL, sizeBytes: number): PullError {
  const what = Number.isNaN(sizeBytes) ? 'no valid length' : `${sizeBytes} bytes`;
  const stated = blob.sizeBytes === 0 ? 'states no size' : `says ${blob.sizeBytes}`;
  return new PullError(
    'metadata-malformed',
    `blob ${blob.digest} has ${what} at ${url.host} where its manifest ${stated}`,
    { hint: 'what the registry or a proxy before it holds is damaged, or the image was made wrongly' },
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
  throw new PullError('network-hopeless', message, { hint, cause: error });
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
  await stepAside(client, job, progress, told.waitMs, told);
  progress.tried.clear();
  await chooseEndpoint(client, job, progress);
}

/**
 * Until the endpoint puts up with this range, too: what it told one range to wait holds for all of them, and those that were
 * under way when it asked to be asked less come back as others end.
 * @throws PullError as `bookWait`
 */
export async function untilWelcome(client: RangeClient, job: RangeJob, progress: Progress): Promise<void> {
  for (;;) {
    const waitMs = client.choice.stepAsideMs(progress.endpoint, sharedClockMs());
    if (waitMs === undefined) return;
    const told = { host: new URL(progress.url).host, waitMs };
    bookWait(client.options.waits, waitMs, Date.now(), told.host);
    // Told already by the range that heard it, but where another endpoint was asked instead, which cannot be any more.
    await stepAside(client, job, progress, waitMs, waitMs > SPREAD_MS ? told : undefined);
  }
}

/** Asks nothing for so long, and is not in flight meanwhile. */
async function stepAside(
  { choice }: RangeClient,
  { events }: RangeJob,
  { endpoint }: Progress,
  waitMs: number,
  told: Wait | undefined,
): Promise<void> {
  const goOn = events.pause(told);
  choice.leave(endpoint);
  await sleep(waitMs + Math.random() * SPREAD_MS);
  choice.enter(endpoint);
  goOn();
}

async function hasNewToken({ events }: RangeJob, progress: Progress): Promise<boolean> {
  progress.renewals += 1;
  const refused = progress.authorization;
  progress.authorization = await events.authorization(refused ?? '', progress.endpoint);
  return progress.authorization !== undefined && progress.authorization !== refused;
}

function refusalOf(
  { blob, onSize }: RangeJob,
  progress: Progress,
  { status, headers, body }: Outcome & { kind: 'answer' },
  url: URL,
): PullError {
  const { sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  if (status === 416 && sizeBytes !== undefined && (onSize !== undefined || sizeBytes !== blob.sizeBytes))
    return wrongSize(blob, url, sizeBytes);
  const asked = new URL(progress.url);
  const repository = asked.pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  const wanted = { host: asked.host, repository, name: blob.digest, kind: 'blob' as const };
  if (url.origin !== asked.origin) return storageRefusal(status, wanted, body, url.host);
  return refusal(status, wanted, body);
}
