import { PullError } from '../format/error.js';
import type { Connection } from './connections.js';
import { type ResponseHeaders, rangeHeader } from './headers.js';
import type { RangeClient, RangeJob } from './range-client.js';
import { rangesIgnored, refusesRange } from './range-response.js';
import type { RangeRoute } from './range-route.js';
import { type LoggedRequest, requestLine } from './redaction.js';
import type { Hop } from './redirect-targets.js';
import {
  type Decision,
  decide,
  decideAfterBreak,
  type RequestHistory,
  type SentRequest,
} from './retry-rules.js';
import { type BodyWindow, type Outcome, type ResponseHandler, transfer } from './transfer.js';

/** Why a stopped range is requested again. */
const TOO_SLOW = 'it came much slower than others';

/** A range in progress. */
export interface Range {
  readonly client: RangeClient;
  readonly job: RangeJob;
  readonly route: RangeRoute;
  /** First byte not yet received. */
  next: number;
  end: number;
  /** Receives the bytes. */
  consume: RangeJob['onBytes'];
  /** It has become the full blob. */
  isFullBlob: boolean;
  /** GETs, without those that followed a redirect. */
  requests: number;
  receivedBytes: number;
  /** The last request was sent again after one that died on a reused connection. */
  resent: boolean;
  /** Requests in a row that brought bytes but none that was new. */
  fruitless: number;
  /** Responses in a row that contradicted themselves. */
  contradictions: number;
  /** `consume` has failed, which is no fault of an endpoint. */
  consumerFailed: boolean;
  /** Ends the range's turn, where it has one. */
  releaseTurn: (() => void) | undefined;
}

/** A request and what it leads to. */
export interface Attempt {
  readonly hop: Hop;
  readonly startedMs: number;
  /** The range when the request was sent. */
  readonly before: Pick<Range, 'next' | 'receivedBytes' | 'isFullBlob'>;
  readonly headers: Record<string, string>;
  /** 0 without a response. */
  status: number;
  decision: Decision;
  /** The beginning of a body that is not part of the blob. */
  body: Buffer;
}

/** Sends one request, when a connection is free and it is the range's turn. */
export async function sendRequest(range: Range, hop: Hop): Promise<Attempt> {
  const { client, route } = range;
  const connections = client.connectionsTo(route.endpoint, route.blobUrl);
  const connection = await connections.acquire(hop.url.origin);
  try {
    if (isPart(range)) await acquireTurn(range, hop.url.host);
    return await exchange(connection, range, hop);
  } finally {
    connections.release(connection);
  }
}

/**
 * @throws PullError `unsupported` when the endpoint turned out to ignore ranges; as
 *   `events.authorization`
 */
async function acquireTurn(range: Range, host: string): Promise<void> {
  const { client, job, route } = range;
  if (range.releaseTurn === undefined) {
    range.releaseTurn = await client.turns.acquire(job.blob.digest);
    await route.refreshToken();
  }
  if (route.has('ranges-ignored')) throw rangesIgnored(host);
}

export function endTurn(range: Range): void {
  range.releaseTurn?.();
  range.releaseTurn = undefined;
}

/** Sends one request on a connection and hands its body on, if that is part of the range. */
async function exchange(connection: Connection, range: Range, hop: Hop): Promise<Attempt> {
  const { client, job } = range;
  const { idleTimeoutMs, answerTimeoutMs } = client.options;
  if (hop.redirects === 0) {
    range.requests++;
    job.events.requested();
  }
  const attempt = beginAttempt(range, hop);
  const { headers } = attempt;
  const request = { path: hop.url.pathname + hop.url.search, headers, idleTimeoutMs, answerTimeoutMs };
  try {
    conclude(range, attempt, await transfer(connection, request, responseHandler(range, attempt)));
    return attempt;
  } catch (error) {
    range.consumerFailed = true;
    log(range, attempt, { failureReason: error instanceof Error ? error.message : String(error) });
    throw error;
  } finally {
    job.stop?.inFlight(undefined);
  }
}

function beginAttempt(range: Range, hop: Hop): Attempt {
  const { client, next, end, route, receivedBytes, isFullBlob } = range;
  const { userAgent } = client.options;
  if (route.has('refuses-ranges')) route.sendsRange = false;
  const authorization = route.authorizationAt(hop);
  const headers = {
    ...(route.sendsRange && { range: rangeHeader(next, end) }),
    'accept-encoding': 'identity',
    ...(userAgent !== undefined && { 'user-agent': userAgent }),
    ...(authorization !== undefined && { authorization }),
  };
  const before = { next, receivedBytes, isFullBlob };
  const none = { status: 0, decision: { action: 'give-up' } as const, body: Buffer.alloc(0) };
  return { hop, startedMs: performance.now(), before, headers, ...none };
}

function isPart({ isFullBlob, route }: Range): boolean {
  return !isFullBlob && route.isPart;
}

/** Receives the response, and is the one place that counts the bytes of its body. */
function responseHandler(range: Range, attempt: Attempt): ResponseHandler {
  const { client, job, route } = range;
  let allowed: Promise<void> | undefined;
  return {
    started: (stop) =>
      job.stop?.inFlight(() => {
        if (attempt.status === 206 && mayBeSplit(range)) stop();
      }),
    head: (status, headers) => acceptHead(range, attempt, status, headers),
    received: (bytes) => {
      range.receivedBytes += bytes;
      job.events.received(bytes, route.endpoint);
      if (isPart(range) && client.turns.isFullBlobComing(job.blob.digest))
        throw rangesIgnored(attempt.hop.url.host);
      allowed = job.events.limit?.(bytes);
    },
    consume: (chunk) => {
      range.next += chunk.length;
      const busy = range.consume(chunk);
      if (allowed === undefined) return busy;
      return busy === undefined ? allowed : Promise.all([busy, allowed]).then(() => {});
    },
  };
}

/** Whether the rest can be requested alone: not where an endpoint serves some ranges only. */
function mayBeSplit({ route, isFullBlob }: Range): boolean {
  return !isFullBlob && !route.has('ranges-ignored');
}

/** Decides what follows from a response. Returns the part of its body to keep, if any. */
function acceptHead(
  range: Range,
  attempt: Attempt,
  status: number,
  headers: ResponseHeaders,
): BodyWindow | undefined {
  const { job, route } = range;
  const { url } = attempt.hop;
  const decideNow = () =>
    decide({ url, status, headers }, requestOf(range, attempt), historyOf(range, attempt));
  let decision = decideNow();
  if (status === 200 && becomesFullBlob(range, decision)) decision = decideNow();
  attempt.status = status;
  attempt.decision = decision;
  if (decision.action !== 'redirect' && decision.action !== 'renew-token') endTurn(range);
  if (decision.action === 'retry' && route.sendsRange && refusesRange(status))
    route.note('gives-ranges', false);
  if (decision.action !== 'accept') return undefined;
  if (status === 206) route.note('gives-ranges');
  if (decision.sizeBytes !== undefined) job.onSize?.(decision.sizeBytes);
  route.bodyBegins(attempt.hop);
  return decision.window;
}

/**
 * Notes that the endpoint ignores ranges, when its response shows that. The first such response for
 * each blob is not wasted: the range becomes the full blob, unless another endpoint serves ranges.
 */
function becomesFullBlob(range: Range, decision: Decision): boolean {
  const { job, route, client } = range;
  const { blob, fullBlobInstead } = job;
  const isRefused = decision.action === 'give-up' && decision.error?.code === 'unsupported';
  if (fullBlobInstead === undefined || (decision.action !== 'accept' && !isRefused)) return false;
  if (!route.sendsRange) route.note('refuses-ranges');
  if (!route.sendsRange || isRefused) route.note('ranges-ignored');
  if (!isRefused || route.hasOthersWithRanges || !client.turns.claimFullBlob(blob.digest)) return false;
  const consume = fullBlobInstead();
  if (consume === undefined) return false;
  Object.assign(range, { next: 0, end: blob.sizeBytes, consume, isFullBlob: true });
  return true;
}

function requestOf(range: Range, { hop }: Attempt): SentRequest {
  const { job, next, end, route } = range;
  const { blob, onSize } = job;
  const { origin, allowHttp, sendsRange } = route;
  const isSizeUnknown = onSize !== undefined;
  const requested = { blob, start: next, end, isSizeUnknown, hasHeader: sendsRange, isPart: isPart(range) };
  return { method: 'GET', origin, redirects: hop.redirects, allowHttp, range: requested };
}

function historyOf({ route, contradictions }: Range, { hop }: Attempt): RequestHistory {
  const { waits, renewals } = route;
  const givesRanges = route.has('gives-ranges');
  const now = { nowMs: Date.now(), random: Math.random() };
  return { target: hop.cachedTarget, waits, renewals, contradictions, givesRanges, ...now };
}

/** Counts what a request brought, and decides what follows when it broke off. */
function conclude(range: Range, attempt: Attempt, outcome: Outcome): void {
  countProgress(range, attempt);
  const { resent, fruitless, contradictions, job } = range;
  const isBroken = outcome.kind === 'broken';
  if (isBroken) {
    const { host } = attempt.hop.url;
    attempt.decision = decideAfterBreak({ ...outcome, host, resent, fruitless, contradictions });
  }
  const isContradiction = isBroken ? outcome.error instanceof PullError : attempt.status < 300;
  if (isContradiction && attempt.decision.action === 'retry') range.contradictions++;
  if (outcome.kind === 'stopped') range.end = job.stop!.ended(range.next, range.end);
  if (outcome.kind === 'unwanted') attempt.body = outcome.body;
  log(range, attempt, outcome.kind === 'stopped' ? { retryReason: TOO_SLOW } : attempt.decision);
}

function countProgress(range: Range, { before }: Attempt): void {
  const first = range.isFullBlob && !before.isFullBlob ? 0 : before.next;
  if (range.next > first) {
    range.fruitless = 0;
    range.contradictions = 0;
    range.route.progressed();
  } else if (range.receivedBytes > before.receivedBytes) range.fruitless++;
}

function log(
  { job, receivedBytes }: Range,
  { hop, headers, status, startedMs, before }: Attempt,
  { retryReason, failureReason }: Pick<LoggedRequest, 'retryReason' | 'failureReason'>,
): void {
  const bytes = receivedBytes - before.receivedBytes;
  const request = { method: 'GET', url: hop.url, range: headers['range'], status, bytes, startedMs };
  job.events.log?.(requestLine({ ...request, retryReason, failureReason }, performance.now()));
}
