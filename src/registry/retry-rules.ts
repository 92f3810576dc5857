/**
 * Where every retry of a request is decided. `decide` says what a response leads to,
 * `decideAfterBreak` what a request that broke off leads to, and `isFaultOfEndpoint` which failures
 * another endpoint may heal. Callers carry the decisions out: `exchange.ts` for manifests, configs
 * and tokens, `range.ts` for ranges of blobs. How many failures a pull survives is up to karma.
 */
import { type ErrorCode, PullError } from '../format/error.js';
import { MAX_UNSTATED_WAITS, MAX_WAIT_MS, waitAfter } from './backoff.js';
import { parseContentRange, parseRetryAfter, single } from './headers.js';
import { describeNetworkError, type FailedHost } from './network-error.js';
import {
  checkRangeResponse,
  type RequestedRange,
  type ResponseHead,
  rangesIgnored,
  refusesRange,
  sizeError,
} from './range-response.js';
import type { LoggedRequest } from './redaction.js';
import { isServerFailure } from './refusal.js';
import type { BodyWindow } from './transfer.js';
import { isRedirect, nextHop } from './transport.js';

/**
 * New Authorization values tried in a row. A value that another range has obtained meanwhile is
 * tried before a new one is requested, and it can have expired as well; so can a new one on a slow
 * link.
 */
const MAX_RENEWALS = 3;

/**
 * Connections in a row that broke after bytes of which none was new: a server that ignores ranges
 * and always breaks before the missing part would feed karma for ever.
 */
const MAX_FRUITLESS = 5;

/**
 * Responses in a row that contradict the request, or themselves. A cache may do so once while it
 * fills; a server that does so three times is misconfigured, and its own message helps more than
 * that of a lost connection.
 */
const MAX_CONTRADICTIONS = 3;

/**
 * Responses to one small request that may break off, or take too long, after some of their bytes:
 * they are requested from the start again, so a server that never completes one would feed karma
 * for ever. As many as of a range (`MAX_FRUITLESS`).
 */
export const MAX_BROKEN_RESPONSES = 5;

/**
 * Requests for a manifest, config or table of contents whose digest is wrong: a proxy may have
 * cached a broken copy.
 */
export const MAX_DIGEST_TRIES = 2;

/** Requests to a token server before its failure counts as a miss. */
export const MAX_TOKEN_TRIES = 3;

/**
 * Statuses with which storage refuses a signed URL that has expired. S3 and Google Cloud Storage
 * answer 400 (`ExpiredToken`) when the credentials that signed it have expired.
 */
const EXPIRED_TARGET: ReadonlySet<number> = new Set([400, 401, 403, 410]);

/** Failures of one endpoint that do not keep another from serving the blob. */
const ENDPOINT_FAULTS: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'network-hopeless',
  'redirect-refused',
  'answer-unexpected',
  'metadata-malformed',
  // It ignores ranges.
  'unsupported',
]);

/** The request that a response answers. */
export interface SentRequest {
  readonly method: 'GET' | 'HEAD' | 'POST';
  /** The origin that may ask for credentials; undefined when none are sent anywhere. */
  readonly origin: string | undefined;
  /** Redirects that led to this URL. */
  readonly redirects: number;
  /** A redirect may lead from https to http. */
  readonly allowHttp?: boolean | undefined;
  /** Left out, the complete body is requested. */
  readonly range?: RequestedRange;
}

/** What happened before the response. */
export interface RequestHistory {
  /** The cached redirect target, when the request went there. */
  readonly target?: URL | undefined;
  /** Responses in a row that asked to wait. */
  readonly waits: number;
  /** New Authorization values since one was last accepted. */
  readonly renewals: number;
  /** Responses in a row that contradicted themselves. */
  readonly contradictions: number;
  /** The endpoint has answered a range with that range, and has refused none since. */
  readonly givesRanges: boolean;
  /** Unix time. */
  readonly nowMs: number;
  /** In [0, 1). */
  readonly random: number;
}

/** What to do next. The reasons go to the log, without secrets or text of the server. */
export type Decision = (
  | { readonly action: 'accept'; readonly window: BodyWindow; readonly sizeBytes?: number | undefined }
  | { readonly action: 'redirect'; readonly to: URL }
  | { readonly action: 'wait'; readonly waitMs: number }
  /** Ask the registry where the blob is now. */
  | { readonly action: 'renew-target' }
  | { readonly action: 'renew-token' }
  /** Send the request again without a Range header. */
  | { readonly action: 'omit-range' }
  /** Send the request again at once: only a connection that was kept alive too long has died. */
  | { readonly action: 'resend' }
  /** A failure that counts as a miss; sending the request again may help. */
  | { readonly action: 'retry'; readonly hint?: string | undefined; readonly sign: FailedHost['sign'] }
  /** Without an error, the caller says what the status means. */
  | { readonly action: 'give-up'; readonly error?: PullError }
) &
  Pick<LoggedRequest, 'retryReason' | 'failureReason'>;

const COMPLETE_BODY: BodyWindow = { skipBytes: 0, lengthBytes: Number.POSITIVE_INFINITY, isExact: false };

/** What a response leads to: the first line that applies decides. */
export function decide(response: ResponseHead, request: SentRequest, history: RequestHistory): Decision {
  const { url, status } = response;
  const { method, range } = request;
  const waitMs = waitMsOf(response, request, history);
  if (isRedirect(status)) return method === 'POST' ? refuseRedirect(url) : redirect(response, request);
  if (waitMs !== undefined) return wait(url.host, waitMs);
  if (history.target !== undefined && EXPIRED_TARGET.has(status)) {
    return { action: 'renew-target', retryReason: 'the target of a redirect has expired' };
  }
  if (range?.hasHeader === true && refusesRange(status)) return rangeRefused(response, range, history);
  // A server that does not know HEAD answers 501 or some other code: the GET that follows tells.
  if (isServerFailure(status) && method !== 'HEAD') return retry(`${url.host} answers ${status}`);
  if (status === 401 && url.origin === request.origin && history.renewals < MAX_RENEWALS) {
    return { action: 'renew-token', retryReason: `${url.host} requires a new token` };
  }
  if (range !== undefined && (status === 200 || status === 206)) return acceptRange(response, range, history);
  if (range === undefined && status >= 200 && status < 300)
    return { action: 'accept', window: COMPLETE_BODY };
  return { action: 'give-up' };
}

/** A request whose response did not begin, or broke off. */
export interface BrokenRequest {
  readonly error: unknown;
  readonly host: string;
  /** It ran on a reused connection, and no response came. */
  readonly unanswered: boolean;
  /** It was sent again after one that ended so. */
  readonly resent: boolean;
  /** How many in a row brought bytes of which none was new. */
  readonly fruitless: number;
  /** Responses in a row that contradicted themselves, before this one. */
  readonly contradictions: number;
}

/** What a request that broke off leads to. */
export function decideAfterBreak(broken: BrokenRequest): Decision {
  const { error, host, unanswered, resent, fruitless, contradictions } = broken;
  if (error instanceof PullError) {
    return error.code === 'answer-unexpected' ? retryContradiction(error, contradictions) : giveUp(error);
  }
  const { message, hint, final, sign } = describeNetworkError(error, host);
  if (fruitless >= MAX_FRUITLESS) {
    const what = `${host} ignores ranges and broke off ${MAX_FRUITLESS} times before the part that is missing`;
    return { action: 'give-up', error: new PullError('network-hopeless', what), retryReason: message };
  }
  if (unanswered && !resent) return { action: 'resend', retryReason: message };
  if (!final) return { action: 'retry', hint, sign, retryReason: message };
  return giveUp(new PullError('network-hopeless', message, { hint, cause: error }));
}

/** Whether a range that failed at one endpoint is requested from the next. */
export function isFaultOfEndpoint(error: unknown): error is PullError {
  return error instanceof PullError && ENDPOINT_FAULTS.has(error.code);
}

function retry(retryReason: string): Decision {
  return { action: 'retry', sign: 'alive', retryReason };
}

function giveUp(error: PullError): Decision {
  return { action: 'give-up', error, failureReason: error.message };
}

/** A contradiction is retried like any other failure, unless it repeats itself. */
function retryContradiction(error: PullError, before: number): Decision {
  return before + 1 < MAX_CONTRADICTIONS ? retry(error.message) : giveUp(error);
}

function redirect({ url, headers }: ResponseHead, { redirects, allowHttp }: SentRequest): Decision {
  try {
    return { action: 'redirect', to: nextHop(url, single(headers['location']), redirects + 1, allowHttp) };
  } catch (error) {
    if (error instanceof PullError) return giveUp(error);
    throw error;
  }
}

/** The body of a POST is a secret meant for one server. */
function refuseRedirect(url: URL): Decision {
  return giveUp(
    new PullError('redirect-refused', `${url.host} redirects a request that carries a secret`, {
      hint: 'nothing was sent there; the token server is set up wrongly',
    }),
  );
}

/** Undefined for HEAD as well: the GET that follows brings the registry's message. */
function waitMsOf(response: ResponseHead, request: SentRequest, history: RequestHistory): number | undefined {
  if (request.method === 'HEAD') return undefined;
  const { waits, nowMs, random } = history;
  const retryAfter = single(response.headers['retry-after']);
  const isUnstated = parseRetryAfter(retryAfter, nowMs) === undefined;
  if (request.range === undefined && isUnstated && waits >= MAX_UNSTATED_WAITS) return undefined;
  return waitAfter({ status: response.status, retryAfter }, waits + 1, nowMs, random);
}

/** A wait that is too long is logged as a failure: `bookWait` refuses it. */
function wait(host: string, waitMs: number): Decision {
  const reason = `${host} asks to wait ${(waitMs / 1000).toFixed(1)} s`;
  const isTooLong = waitMs > MAX_WAIT_MS;
  return { action: 'wait', waitMs, ...(isTooLong ? { failureReason: reason } : { retryReason: reason }) };
}

/**
 * A 416 that states another size is final. One refusal among ranges that were served is a failure;
 * otherwise the blob is requested without a range.
 */
function rangeRefused(
  { url, status, headers }: ResponseHead,
  range: RequestedRange,
  history: RequestHistory,
) {
  const { blob, isSizeUnknown, isPart } = range;
  const { sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  const isOther = sizeBytes !== undefined && (isSizeUnknown || sizeBytes !== blob.sizeBytes);
  if (status === 416 && isOther) return giveUp(sizeError(blob, url, sizeBytes));
  const reason = `${url.host} answers ${status} to a range`;
  if (history.givesRanges) return retry(reason);
  if (isPart) return giveUp(rangesIgnored(url.host));
  return { action: 'omit-range', retryReason: reason } as const;
}

function acceptRange(response: ResponseHead, range: RequestedRange, history: RequestHistory): Decision {
  const checked = checkRangeResponse(response, range);
  if (!('error' in checked)) return { action: 'accept', ...checked };
  const { error, mayPass } = checked;
  return mayPass ? retryContradiction(error, history.contradictions) : giveUp(error);
}
