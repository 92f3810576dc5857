import { PullError } from '../format/error.js';
import type { RangeClient, RangeJob, RangeTotals } from './range-client.js';
import { type Attempt, endTurn, type Range, sendRequest } from './range-request.js';
import { rangesIgnored } from './range-response.js';
import { RangeRoute } from './range-route.js';
import { firstErrorMessage, refusal, serverError, storageRefusal } from './refusal.js';

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
  const { decision, hop } = attempt;
  const { route } = range;
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
      const words = firstErrorMessage(attempt.body);
      await route.wait({ host: hop.url.host, waitMs: decision.waitMs, words, isCrossOrigin });
      break;
    }
    case 'renew-target':
      await route.renewTarget(hop.cachedTarget!);
      break;
    case 'retry':
      await route.failed(hop, failureOf(attempt), decision);
      break;
    case 'omit-range':
      route.sendsRange = false;
      break;
    case 'give-up':
      throw decision.error ?? refusalOf(range, attempt);
  }
}

/** A failure with the server's own message, if it has one. */
function failureOf({ hop, status, body, decision }: Attempt): string {
  return status >= 400 ? serverError(hop.url.host, status, body) : (decision.retryReason ?? '');
}

function refusalOf({ job, route }: Range, { hop, status, body }: Attempt): PullError {
  const { url } = hop;
  const blobUrl = new URL(route.blobUrl);
  const repository = blobUrl.pathname.replace(/^\/v2\//, '').replace(/\/blobs\/[^/]*$/, '');
  const requested = { host: blobUrl.host, repository, name: job.blob.digest, kind: 'blob' as const };
  if (url.origin !== blobUrl.origin) return storageRefusal(status, requested, body, url.host);
  return refusal(status, requested, body);
}
