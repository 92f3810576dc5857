import { PullError } from '../format/error.js';
import type { Connection } from './connections.js';
import { rangeHeader } from './headers.js';
import type { RangeClient, RangeJob, RangeTotals } from './range-client.js';
import { type ResponseHead, rangesIgnored, refusesRange } from './range-response.js';
import { type Hop, RangeRoute } from './range-route.js';
import { type LoggedRequest, requestLine } from './redaction.js';
import { firstErrorMessage, refusal, serverError, storageRefusal } from './refusal.js';
import { type Decision, decide, decideAfterBreak } from './retry-rules.js';
import { type BodyWindow, type Outcome, type ResponseHandler, transfer } from './transfer.js';

/** A range in progress. */
interface Range {
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
interface Attempt {
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

/**
 * Fetches bytes `[start, end)` of a blob, continuing from the first byte not yet received after
 * every failure of the network; a received byte is never requested again. Each turn of the loop
 * sends one request: `RangeRoute` says where, `decide` what its response leads to.
 * @throws PullError `blob-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`,
 *   `answer-unexpected`, `metadata-malformed` (the blob has another size than its manifest states),
 *   `unsupported` (see `fullBlobInstead`); what `events.miss` and `onBytes` throw
 */
export async function fetchRange(client: RangeClient, job: RangeJob): Promise<RangeTotals> {
  const range = beginRange(client, job);
  const { route } = range;
  try {
    if (range.next < range.end) await route.chooseEndpoint();
    while (range.next < range.end) {
      try {
        await carryOut(range, await sendRequest(range, await route.next()));
      } catch (error) {
        endTurn(range);
        if (range.consumerFailed || !(await route.failOver(error))) throw error;
      }
    }
  } finally {
    endTurn(range);
    route.close();
  }
  if (range.isFullBlob) throw rangesIgnored(new URL(route.blobUrl).host);
  return { requests: range.requests, receivedBytes: range.receivedBytes };
}

function beginRange(client: RangeClient, job: RangeJob): Range {
  const { blob, start, end, onSize } = job;
  if (!(start >= 0 && start <= end && (end <= blob.sizeBytes || onSize !== undefined))) {
    throw new PullError('internal', `range [${start}, ${end}) is not inside ${blob.digest}`);
  }
  const route = new RangeRoute(client, job);
  const counts = { next: start, end, requests: 0, receivedBytes: 0, fruitless: 0, contradictions: 0 };
  const flags = { isFullBlob: false, resent: false, consumerFailed: false, releaseTurn: undefined };
  return { client, job, route, consume: job.onBytes, ...counts, ...flags };
}

/** Carries out what was decided. Returns when it is time for the next request. */
async function carryOut(range: Range, attempt: Attempt): Promise<void> {
  const { decision, hop, status, body } = attempt;
  const { route } = range;
  const { host } = hop.url;
  if (decision.action === 'redirect') {
    route.redirected(hop, decision.to);
    return;
  }
  range.resent = decision.action === 'resend';
  if (decision.action === 'renew-token') {
    // The range keeps its turn: those that wait for it find the new token.
    if (await route.renewToken()) return;
    throw refusalOf(range, attempt);
  }
  route.requestEnded();
  endTurn(range);
  switch (decision.action) {
    case 'accept':
      route.succeeded();
      break;
    case 'wait': {
      const isCrossOrigin = !hop.isOnOrigin || route.origin === undefined;
      await route.wait({ host, waitMs: decision.waitMs, reason: firstErrorMessage(body), isCrossOrigin });
      break;
    }
    case 'renew-target':
      await route.renewTarget(hop.cachedTarget!);
      break;
    case 'retry': {
      const message = status >= 400 ? serverError(host, status, body) : (decision.retryReason ?? '');
      await route.failed(hop, message, decision);
      break;
    }
    case 'omit-range':
      route.sendsRange = false;
      break;
    case 'give-up':
      throw decision.error ?? refusalOf(range, attempt);
  }
}

function refusalOf({ job, route }: Range, { hop, status, body }: Attempt): PullError {
  const { url } = hop;
  const blobUrl = new URL(route.blobUrl);
  const repository = blobUrl.pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  const requested = { host: blobUrl.host, repository, name: job.blob.digest, kind: 'blob' as const };
  if (url.origin !== blobUrl.origin) return storageRefusal(status, requested, body, url.host);
  return refusal(status, requested, body);
}

/**
 * Sends one request, when a connection is free and it is the range's turn.
 * @throws PullError `unsupported` when the endpoint turned out to ignore ranges; as
 *   `events.authorization`
 */
async function sendRequest(range: Range, hop: Hop): Promise<Attempt> {
  const { client, job, route } = range;
  const connections = client.connectionsTo(route.endpoint, route.blobUrl);
  const connection = await connections.acquire(hop.url.origin);
  try {
    if (isPart(range)) {
      if (range.releaseTurn === undefined) {
        range.releaseTurn = await client.turns.acquire(job.blob.digest);
        await route.refreshToken();
      }
      if (route.has('ranges-ignored')) throw rangesIgnored(hop.url.host);
    }
    return await exchange(connection, range, hop);
  } finally {
    connections.release(connection);
  }
}

function isPart({ isFullBlob, route }: Range): boolean {
  return !isFullBlob && route.isPart;
}

function endTurn(range: Range): void {
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

/** Receives the response, and is the one place that counts the bytes of its body. */
function responseHandler(range: Range, attempt: Attempt): ResponseHandler {
  const { client, job, route } = range;
  let allowed: Promise<void> | undefined;
  return {
    started: (stop) =>
      job.stop?.inFlight(() => {
        // Where an endpoint serves some ranges only, the rest cannot be requested alone.
        if (attempt.status === 206 && !range.isFullBlob && !route.has('ranges-ignored')) stop();
      }),
    head: (status, headers) => acceptHead(range, attempt, { url: attempt.hop.url, status, headers }),
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

/** Decides what follows from a response. Returns the part of its body to keep, if any. */
function acceptHead(range: Range, attempt: Attempt, response: ResponseHead): BodyWindow | undefined {
  const { job, route } = range;
  const { status } = response;
  let decision = decideOn(response, range, attempt);
  if (status === 200 && becomesFullBlob(range, decision)) decision = decideOn(response, range, attempt);
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

function decideOn(response: ResponseHead, range: Range, { hop }: Attempt): Decision {
  const { job, next, end, route, contradictions } = range;
  const { origin, allowHttp, sendsRange, waits, renewals } = route;
  const flags = { isSizeUnknown: job.onSize !== undefined, hasHeader: sendsRange, isPart: isPart(range) };
  const requested = { blob: job.blob, start: next, end, ...flags };
  const request = { method: 'GET', origin, redirects: hop.redirects, allowHttp, range: requested } as const;
  const now = { nowMs: Date.now(), random: Math.random() };
  const givesRanges = route.has('gives-ranges');
  const history = { target: hop.cachedTarget, waits, renewals, contradictions, givesRanges, ...now };
  return decide(response, request, history);
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
  if (outcome.kind === 'unwanted') attempt.body = outcome.body;
  if (outcome.kind !== 'stopped') log(range, attempt, attempt.decision);
  else {
    range.end = job.stop!.ended(range.next, range.end);
    log(range, attempt, { retryReason: 'it came much slower than others' });
  }
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
