import { PullError } from '../format/error.js';
import {
  type Asked,
  classify,
  classifyBreak,
  type Known,
  type Next,
  rangesIgnored,
  refusesRange,
} from './classify.js';
import { type ResponseHeaders, rangeHeader } from './headers.js';
import { NextUrl, type Place } from './next-url.js';
import type { RangeClient, RangeJob, RangeTotals } from './range-client.js';
import { requestLine } from './redaction.js';
import { firstErrorMessage, refusal, serverError, storageRefusal } from './refusal.js';
import { type Sink, transfer } from './transfer.js';

/** Why a stopped range is asked for again. */
const TOO_SLOW = 'it came much slower than others';

/** A range under way. */
interface Range {
  readonly client: RangeClient;
  readonly job: RangeJob;
  readonly where: NextUrl;
  /** First byte not yet received. */
  next: number;
  end: number;
  /** Where the bytes go. */
  take: RangeJob['onBytes'];
  /** It has become the whole blob. */
  isWhole: boolean;
  /** GETs, without those that followed a redirect. */
  requests: number;
  receivedBytes: number;
  /** The last request was a repetition of one that died on a reused connection. */
  repeated: boolean;
  /** Requests in a row that brought bytes but none that was new. */
  fruitless: number;
  /** Responses in a row that contradicted themselves. */
  contradictions: number;
  /** What takes the bytes has failed, which is no endpoint's fault. */
  takerFailed: boolean;
  /** Ends its turn, where it has one. */
  endTurn: (() => void) | undefined;
}

/** What came of a request. */
interface Attempt {
  readonly next: Next;
  readonly place: Place;
  /** 0 without a response. */
  readonly status: number;
  /** The beginning of a body that is not part of the blob. */
  readonly body: Buffer;
}

/**
 * Fetches bytes `[start, end)` of a blob, going on from the first byte not yet received after every failure of the
 * network; a received byte is never asked for again. Each turn sends one request: `NextUrl` says where, `classify` what
 * follows from its response.
 * @throws PullError `blob-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`, `answer-unexpected`,
 *   `metadata-malformed` (the blob has another size than its manifest says), `unsupported` (see `fullBlobInstead`); what
 *   `events.miss` and `onBytes` throw
 */
export async function fetchRange(client: RangeClient, job: RangeJob): Promise<RangeTotals> {
  const { blob, start, end, onSize } = job;
  if (!(start >= 0 && start <= end && (end <= blob.sizeBytes || onSize !== undefined))) {
    throw new PullError('internal', `range [${start}, ${end}) is not inside ${blob.digest}`);
  }
  const where = new NextUrl(client, job);
  const counts = { next: start, end, requests: 0, receivedBytes: 0, fruitless: 0, contradictions: 0 };
  const flags = { isWhole: false, repeated: false, takerFailed: false, endTurn: undefined };
  const range: Range = { client, job, where, take: job.onBytes, ...counts, ...flags };
  try {
    if (start < end) await where.choose();
    while (range.next < range.end) {
      try {
        await act(range, await send(range, await where.next()));
      } catch (error) {
        endTurn(range);
        if (range.takerFailed || !(await where.passOn(error))) throw error;
      }
    }
  } finally {
    endTurn(range);
    where.close();
  }
  if (range.isWhole) throw rangesIgnored(new URL(where.blobUrl).host);
  return { requests: range.requests, receivedBytes: range.receivedBytes };
}

/** Sends one request and hands its body on, if that is part of the range. */
async function send(range: Range, place: Place): Promise<Attempt> {
  const { client, job, where } = range;
  const { url } = place;
  const before = { next: range.next, receivedBytes: range.receivedBytes, isWhole: range.isWhole };
  const connections = client.connectionsTo(where.endpoint, where.blobUrl);
  const connection = await connections.take(url.origin);
  try {
    if (isPart(range)) await takeTurn(range, url.host);
  } catch (error) {
    connections.give(connection);
    throw error;
  }
  if (place.hops === 0) {
    range.requests++;
    job.events.requested();
  }
  if (where.does('refuses-ranges')) where.ranged = false;
  const startedMs = performance.now();
  const headers = headersFor(range, place);
  const answered: { next?: Next; status: number } = { status: 0 };
  const tell = ({ again, givenUp }: Pick<Next, 'again' | 'givenUp'>) => {
    const bytes = range.receivedBytes - before.receivedBytes;
    const told = { method: 'GET', url, range: headers.range, status: answered.status, bytes, startedMs };
    job.events.answered?.(requestLine({ ...told, again, givenUp }, performance.now()));
  };
  const sink: Sink = {
    ...sinkFor(range, place, (status, next) => Object.assign(answered, { status, next })),
    started: (stop) =>
      job.stop?.inFlight(() => {
        if (answered.status === 206 && mayBeCut(range)) stop();
      }),
  };
  try {
    const { idleTimeoutMs, answerTimeoutMs } = client.options;
    const request = { path: url.pathname + url.search, headers, idleTimeoutMs, answerTimeoutMs };
    const outcome = await transfer(connection, request, sink);
    const isNew = range.next > (range.isWhole && !before.isWhole ? 0 : before.next);
    if (isNew) {
      Object.assign(range, { fruitless: 0, contradictions: 0 });
      where.progressed();
    } else if (range.receivedBytes > before.receivedBytes) range.fruitless++;
    const { repeated, fruitless, contradictions } = range;
    const isBroken = outcome.kind === 'broken';
    const isStopped = outcome.kind === 'stopped';
    if (isStopped) range.end = job.stop!.ended(range.next, range.end);
    const next = isBroken
      ? classifyBreak({ ...outcome, host: url.host, repeated, fruitless, contradictions })
      : answered.next!;
    const isContradiction = isBroken ? outcome.error instanceof PullError : answered.status < 300;
    if (isContradiction && next.next === 'fail') range.contradictions++;
    tell(isStopped ? { again: TOO_SLOW } : next);
    const body = outcome.kind === 'spare' ? outcome.body : Buffer.alloc(0);
    return { next, place, status: answered.status, body };
  } catch (error) {
    range.takerFailed = true;
    tell({ givenUp: error instanceof Error ? error.message : String(error) });
    throw error;
  } finally {
    job.stop?.inFlight(undefined);
    connections.give(connection);
  }
}

/** @throws PullError `unsupported` when the endpoint turned out to give whole blobs only; as `events.authorization` */
async function takeTurn(range: Range, host: string): Promise<void> {
  const { client, job, where } = range;
  if (range.endTurn === undefined) {
    range.endTurn = await client.turns.take(job.blob.digest);
    await where.refreshToken();
  }
  if (where.does('ranges-ignored')) throw rangesIgnored(host);
}

function headersFor(range: Range, place: Place) {
  const { client, next, end, where } = range;
  const { userAgent } = client.options;
  const authorization = where.authorizationAt(place);
  return {
    ...(where.ranged && { range: rangeHeader(next, end) }),
    'accept-encoding': 'identity',
    ...(userAgent !== undefined && { 'user-agent': userAgent }),
    ...(authorization !== undefined && { authorization }),
  };
}

function endTurn(range: Range): void {
  range.endTurn?.();
  range.endTurn = undefined;
}

function isPart({ isWhole, where }: Range): boolean {
  return !isWhole && where.isPart;
}

/** Whether its rest may be asked for alone: not where the endpoint gives parts of blobs now and then only. */
function mayBeCut({ where, isWhole }: Range): boolean {
  return !isWhole && !where.does('ranges-ignored');
}

/** Where the body goes, and the one place that counts its bytes. `classified` is told what follows from the head. */
function sinkFor(range: Range, place: Place, classified: (status: number, next: Next) => void): Sink {
  const { client, job, where } = range;
  let allowed: Promise<void> | undefined;
  const classifyHead = (status: number, headers: ResponseHeaders) =>
    classify({ url: place.url, status, headers }, askedBy(range, place), known(range, place));
  return {
    begin: (status, headers) => {
      let next = classifyHead(status, headers);
      if (status === 200 && becomesFullBlob(range, next)) next = classifyHead(status, headers);
      classified(status, next);
      if (next.next !== 'redirect' && next.next !== 'renew-token') endTurn(range);
      if (next.next === 'fail' && where.ranged && refusesRange(status)) where.note('gives-ranges', false);
      if (next.next !== 'take') return undefined;
      if (status === 206) where.note('gives-ranges');
      if (next.sizeBytes !== undefined) job.onSize?.(next.sizeBytes);
      where.found(place);
      return next.plan;
    },
    received: (bytes) => {
      range.receivedBytes += bytes;
      job.events.received(bytes, where.endpoint);
      if (isPart(range) && client.turns.isFullBlobComing(job.blob.digest))
        throw rangesIgnored(place.url.host);
      allowed = job.events.limit?.(bytes);
    },
    take: (chunk) => {
      range.next += chunk.length;
      const busy = range.take(chunk);
      if (allowed === undefined) return busy;
      return busy === undefined ? allowed : Promise.all([busy, allowed]).then(() => {});
    },
  };
}

/**
 * Notes that the endpoint gives whole blobs only, when it has answered so. The first such response for each blob is not lost: the
 * range becomes the whole blob, unless another endpoint gives ranges.
 */
function becomesFullBlob(range: Range, next: Next): boolean {
  const { job, where } = range;
  const { blob, fullBlobInstead } = job;
  const isRefused = next.next === 'give-up' && next.error?.code === 'unsupported';
  if (fullBlobInstead === undefined || (next.next !== 'take' && !isRefused)) return false;
  if (!where.ranged) where.note('refuses-ranges');
  if (!where.ranged || isRefused) where.note('ranges-ignored');
  if (!isRefused || where.hasOthersWithRanges || !range.client.turns.claimFullBlob(blob.digest)) return false;
  const take = fullBlobInstead();
  if (take === undefined) return false;
  Object.assign(range, { next: 0, end: blob.sizeBytes, take, isWhole: true });
  return true;
}

function askedBy(asked: Range, { hops }: Place): Asked {
  const { job, next, end, where } = asked;
  const { blob, onSize } = job;
  const sizeUnknown = onSize !== undefined;
  const range = { blob, start: next, end, sizeUnknown, ranged: where.ranged, isPart: isPart(asked) };
  return { method: 'GET', origin: where.origin, hops, allowHttp: where.allowHttp, range };
}

function known({ where, contradictions }: Range, { target }: Place): Known {
  const { waited, renewals } = where;
  const givesRanges = where.does('gives-ranges');
  return { target, waited, renewals, contradictions, givesRanges, nowMs: Date.now(), random: Math.random() };
}

/** Does what follows from a response. Returns when it is time for the next request. */
async function act(range: Range, attempt: Attempt): Promise<void> {
  const { next, place } = attempt;
  const { where } = range;
  if (next.next === 'redirect') {
    where.redirected(place, next.to);
    return;
  }
  range.repeated = next.next === 'repeat';
  if (next.next === 'renew-token') {
    // Those that wait for this one find the new token.
    if (await where.renewToken()) return;
    throw refusalOf(range, attempt);
  }
  where.ended();
  endTurn(range);
  switch (next.next) {
    case 'take':
      where.succeeded();
      break;
    case 'wait':
      await where.wait({
        host: place.url.host,
        waitMs: next.waitMs,
        words: firstErrorMessage(attempt.body),
        isElsewhere: !place.trusted || where.origin === undefined,
      });
      break;
    case 'renew-target':
      await where.renewTarget(place.target!);
      break;
    case 'fail':
      await where.failed(place, failureOf(next, attempt), next);
      break;
    case 'ask-whole':
      where.ranged = false;
      break;
    case 'give-up':
      throw next.error ?? refusalOf(range, attempt);
  }
}

/** A failure with the server's own words, if it has any. */
function failureOf({ again = '' }: Next, { place, status, body }: Attempt): string {
  return status >= 400 ? serverError(place.url.host, status, body) : again;
}

function refusalOf({ job, where }: Range, { place, status, body }: Attempt): PullError {
  const { url } = place;
  const asked = new URL(where.blobUrl);
  const repository = asked.pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  const wanted = { host: asked.host, repository, name: job.blob.digest, kind: 'blob' as const };
  if (url.origin !== asked.origin) return storageRefusal(status, wanted, body, url.host);
  return refusal(status, wanted, body);
}
