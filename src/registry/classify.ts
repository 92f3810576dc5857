import { PullError } from '../format/error.js';
import { MAX_UNSTATED_WAITS, MAX_WAIT_MS, waitAfter } from './backoff.js';
import {
  isCoded,
  parseContentLength,
  parseContentRange,
  parseRetryAfter,
  type ResponseHeaders,
  single,
} from './headers.js';
import { describeNetworkError, type FailedHost } from './network-error.js';
import type { BlobSource } from './range-client.js';
import type { LoggedRequest } from './redaction.js';
import { isServerFailure, unexpectedAnswer } from './refusal.js';
import type { BodyPlan } from './transfer.js';
import { isRedirect, nextHop } from './urls.js';

/**
 * New Authorization values tried in a row. A value that another range was given in the meantime is tried before a new one
 * is asked for, and it can have expired as well; so can a new one on a slow link.
 */
const MAX_RENEWALS = 3;

/**
 * Connections in a row that broke after bytes of which none was new: a server that ignores ranges and always breaks before
 * the wanted part would feed karma for ever.
 */
const MAX_FRUITLESS = 5;

/**
 * Responses in a row that contradict what was asked for, or themselves. A cache may do so once while it fills; what does so
 * three times is set up wrongly, and its own words help more than those of a lost connection.
 */
const MAX_CONTRADICTIONS = 3;

/**
 * What storage says of a signed URL that has expired. S3 and Google Cloud Storage answer 400 (`ExpiredToken`) when it is
 * not the URL but the credentials that signed it.
 */
const REFUSED_TARGET: ReadonlySet<number> = new Set([400, 401, 403, 410]);

/**
 * What servers say that do not know ranges and do not ignore them as they should (RFC 9110, 14.2): bad request, unsatisfiable,
 * not implemented.
 */
const REFUSED_RANGE: ReadonlySet<number> = new Set([400, 416, 501]);

/** The head of a response, and which URL gave it. */
export interface Response {
  readonly url: URL;
  readonly status: number;
  readonly headers: ResponseHeaders;
}

/** What was asked for. */
export interface Asked {
  readonly method: 'GET' | 'HEAD' | 'POST';
  /** The origin that may want credentials; undefined when none are sent anywhere. */
  readonly origin: string | undefined;
  /** Redirects that led to this URL. */
  readonly hops: number;
  /** A redirect may lead from https to http. */
  readonly allowHttp?: boolean | undefined;
  /** Left out, the whole body is wanted. */
  readonly range?: AskedRange;
}

/** Half-open, in bytes. */
export interface AskedRange {
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  /** Nobody knows how large the blob is: the response has to say so. */
  readonly sizeUnknown: boolean;
  /** With a Range header, that is. */
  readonly ranged: boolean;
  /** The caller would rather fetch the whole blob than skip to a part of it. */
  readonly isPart: boolean;
}

/** What is known before the response. */
export interface Known {
  /** The redirect target that was remembered, when that is what was asked. */
  readonly target?: URL | undefined;
  /** Responses in a row that asked to wait. */
  readonly waited: number;
  /** New Authorization values since one was last accepted. */
  readonly renewals: number;
  /** Responses in a row that contradicted themselves. */
  readonly contradictions: number;
  /** The endpoint has answered a range with that range, and refused none since. */
  readonly givesRanges: boolean;
  /** Unix time. */
  readonly nowMs: number;
  /** In [0, 1). */
  readonly random: number;
}

/** What to do next. `again` and `givenUp` are for the log and hold no secret and none of the server's words. */
export type Next = (
  | { readonly next: 'take'; readonly plan: BodyPlan; readonly sizeBytes?: number | undefined }
  | { readonly next: 'redirect'; readonly to: URL }
  | { readonly next: 'wait'; readonly waitMs: number }
  /** Ask the registry where the blob is now. */
  | { readonly next: 'renew-target' }
  | { readonly next: 'renew-token' }
  /** Ask without a Range header. */
  | { readonly next: 'ask-whole' }
  /** Ask the same again: only a connection that was kept too long has died. */
  | { readonly next: 'repeat' }
  /** A failure that counts; asking again may help. */
  | { readonly next: 'fail'; readonly hint?: string | undefined; readonly sign: FailedHost['sign'] }
  /** Without an error it is for the caller to say what the status means. */
  | { readonly next: 'give-up'; readonly error?: PullError }
) &
  Pick<LoggedRequest, 'again' | 'givenUp'>;

interface Rule {
  when(response: Response, asked: Asked, known: Known): boolean;
  next(response: Response, asked: Asked, known: Known): Next;
}

/** The first rule that applies decides. */
const RULES: readonly Rule[] = [
  { when: ({ status }, { method }) => isRedirect(status) && method === 'POST', next: redirectedPost },
  { when: ({ status }) => isRedirect(status), next: redirect },
  { when: (...all) => waitMsOf(...all) !== undefined, next: wait },
  {
    when: ({ status }, _, { target }) => target !== undefined && REFUSED_TARGET.has(status),
    next: () => ({ next: 'renew-target', again: 'the target of a redirect has expired' }),
  },
  {
    when: ({ status }, { range }) => range?.ranged === true && refusesRange(status),
    next: refusedRange,
  },
  {
    // A server that does not know HEAD says so with 501, and with other codes: a GET follows, which tells.
    when: ({ status }, { method }) => isServerFailure(status) && method !== 'HEAD',
    next: ({ url, status }) => ({ next: 'fail', sign: 'alive', again: `${url.host} answers ${status}` }),
  },
  {
    when: ({ status, url }, { origin }, { renewals }) =>
      status === 401 && url.origin === origin && renewals < MAX_RENEWALS,
    next: ({ url }) => ({ next: 'renew-token', again: `${url.host} wants a new token` }),
  },
  { when: ({ status }, { range }) => range !== undefined && isBody(status), next: takeRange },
  {
    when: ({ status }, { range }) => range === undefined && status >= 200 && status < 300,
    next: () => ({ next: 'take', plan: ALL }),
  },
  { when: () => true, next: () => ({ next: 'give-up' }) },
];

const ALL: BodyPlan = { skipBytes: 0, takeBytes: Number.POSITIVE_INFINITY, exact: false };

/** What follows from the head of a response. */
export function classify(response: Response, asked: Asked, known: Known): Next {
  return RULES.find(({ when }) => when(response, asked, known))!.next(response, asked, known);
}

/** A request whose response did not come to its end, or did not begin. */
export interface Break {
  readonly error: unknown;
  readonly host: string;
  /** It ran on a connection that had been used before, and nothing came. */
  readonly unanswered: boolean;
  /** It repeated one that ended so. */
  readonly repeated: boolean;
  /** How many in a row brought bytes of which none was new. */
  readonly fruitless: number;
  /** Responses in a row that contradicted themselves, before this one. */
  readonly contradictions: number;
}

/** What follows from a request that broke off. */
export function classifyBreak(broken: Break): Next {
  const { error, host, unanswered, repeated, fruitless, contradictions } = broken;
  if (error instanceof PullError) {
    return error.code === 'answer-unexpected' ? contradiction(error, contradictions) : giveUp(error);
  }
  const { message, hint, final, sign } = describeNetworkError(error, host);
  if (fruitless >= MAX_FRUITLESS) {
    const what = `${host} ignores ranges and broke off ${MAX_FRUITLESS} times before the part that is missing`;
    return { next: 'give-up', error: new PullError('network-hopeless', what), again: message };
  }
  if (unanswered && !repeated) return { next: 'repeat', again: message };
  if (!final) return { next: 'fail', hint, sign, again: message };
  return giveUp(new PullError('network-hopeless', message, { hint, cause: error }));
}

/** A failure like any other, unless it repeats itself. */
function contradiction(error: PullError, before: number): Next {
  return before + 1 < MAX_CONTRADICTIONS
    ? { next: 'fail', sign: 'alive', again: error.message }
    : giveUp(error);
}

function giveUp(error: PullError): Next {
  return { next: 'give-up', error, givenUp: error.message };
}

/** Whether a status may mean that a server takes no Range header. */
export function refusesRange(status: number): boolean {
  return REFUSED_RANGE.has(status);
}

function isBody(status: number): boolean {
  return status === 200 || status === 206;
}

function redirect({ url, headers }: Response, { hops, allowHttp }: Asked): Next {
  try {
    return { next: 'redirect', to: nextHop(url, single(headers['location']), hops + 1, allowHttp) };
  } catch (error) {
    if (error instanceof PullError) return giveUp(error);
    throw error;
  }
}

/** The body is a secret meant for one server. */
function redirectedPost({ url }: Response): Next {
  return giveUp(
    new PullError('redirect-refused', `${url.host} redirects a request that carries a secret`, {
      hint: 'nothing was sent there; the token server is set up wrongly',
    }),
  );
}

/** Undefined for HEAD as well: its answer has no words of the registry, and the GET that follows brings them. */
function waitMsOf({ status, headers }: Response, { method, range }: Asked, known: Known): number | undefined {
  if (method === 'HEAD') return undefined;
  const retryAfter = single(headers['retry-after']);
  const isUnstated = parseRetryAfter(retryAfter, known.nowMs) === undefined;
  if (range === undefined && isUnstated && known.waited >= MAX_UNSTATED_WAITS) return undefined;
  return waitAfter({ status, retryAfter }, known.waited + 1, known.nowMs, known.random);
}

function wait(response: Response, asked: Asked, known: Known): Next {
  const waitMs = waitMsOf(response, asked, known)!;
  return { next: 'wait', waitMs, ...asksToWait(response.url.host, waitMs) };
}

/** What a line about such an answer says: that it is asked for again, or that the wait is too long for that. */
function asksToWait(host: string, waitMs: number): Pick<LoggedRequest, 'again' | 'givenUp'> {
  const reason = `${host} asks to wait ${(waitMs / 1000).toFixed(1)} s`;
  return waitMs > MAX_WAIT_MS ? { givenUp: reason } : { again: reason };
}

/** Compares a 200 or 206 with what was asked for. A 206 may have less of it (RFC 9110, 15.3.7), or more. */
function takeRange({ url, status, headers }: Response, { range }: Asked, { contradictions }: Known): Next {
  const { blob, start, end } = range!;
  const unexpected = (what: string) =>
    unexpectedAnswer(`${url.host} answers for bytes ${start} to ${end} of ${blob.digest} with ${what}`);
  const lengthBytes = parseContentLength(single(headers['content-length']));
  const part = status === 206 ? parseContentRange(single(headers['content-range'])) : undefined;
  const sizeBytes = part === undefined && status === 200 ? lengthBytes : part?.sizeBytes;
  const came = status === 206 ? part?.range : { start: 0, end: blob.sizeBytes };
  // What a storage says of the coding of a blob is about bytes that were uploaded so: the digest decides. A proxy that encodes
  // changes the length, or does not know it.
  const wantedBytes = status === 200 ? blob.sizeBytes : came && came.end - came.start;
  const mayBeOther = lengthBytes === undefined || lengthBytes !== wantedBytes;
  if (mayBeOther && isCoded(single(headers['content-encoding'])))
    return giveUp(unexpected('encoded content'));
  if (came === undefined) return contradiction(unexpected('a part it does not name'), contradictions);
  if (status === 200 && mayBeOther && /^text\/html\b/i.test(single(headers['content-type']) ?? ''))
    return contradiction(unexpected('a web page'), contradictions);
  const wrong = wrongSize(range!, url, sizeBytes);
  if (wrong !== undefined) return status === 200 ? contradiction(wrong, contradictions) : giveUp(wrong);
  if (status === 200 && range!.isPart) return giveUp(rangesIgnored(url.host));
  if (status === 206) {
    const what = `bytes ${came.start} to ${came.end}`;
    if (came.start !== start) return contradiction(unexpected(what), contradictions);
    if (lengthBytes !== undefined && lengthBytes !== came.end - came.start)
      return contradiction(unexpected(`${lengthBytes} bytes as ${what}`), contradictions);
  }
  const takeBytes = Math.min(end, status === 200 ? end : came.end) - start;
  const exact = status === 200 ? end === blob.sizeBytes : came.end <= end;
  return { next: 'take', plan: { skipBytes: start - came.start, takeBytes, exact }, sizeBytes };
}

/**
 * A range that is refused is none of the blob's, where its size is another than was stated. One refusal among good ranges is a failure;
 * else the blob is asked for without a range.
 */
function refusedRange({ url, status, headers }: Response, { range }: Asked, { givesRanges }: Known): Next {
  const { blob, sizeUnknown, isPart } = range!;
  const { sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  const isOther = sizeBytes !== undefined && (sizeUnknown || sizeBytes !== blob.sizeBytes);
  if (status === 416 && isOther) return giveUp(sizeError(blob, url, sizeBytes));
  const again = `${url.host} answers ${status} to a range`;
  if (givesRanges) return { next: 'fail', sign: 'alive', again };
  if (isPart) return giveUp(rangesIgnored(url.host));
  return { next: 'ask-whole', again };
}

/** Ends a range whose caller can fetch the whole blob instead. */
export function rangesIgnored(host: string): PullError {
  return new PullError('unsupported', `${host} gives whole blobs only, and no ranges of them`);
}

/** What is wrong with the size that a response states, if anything is. */
function wrongSize({ blob, sizeUnknown }: AskedRange, url: URL, sizeBytes: number | undefined) {
  if (!sizeUnknown)
    return sizeBytes === undefined || sizeBytes === blob.sizeBytes
      ? undefined
      : sizeError(blob, url, sizeBytes);
  if (sizeBytes === 0) return sizeError(blob, url, sizeBytes);
  if (sizeBytes !== undefined && Number.isSafeInteger(sizeBytes)) return undefined;
  return unexpectedAnswer(
    `${url.host} does not say how large ${blob.digest} is, and neither does its manifest`,
  );
}

function sizeError(blob: BlobSource, url: URL, sizeBytes: number): PullError {
  const what = Number.isNaN(sizeBytes) ? 'no valid length' : `${sizeBytes} bytes`;
  const stated = blob.sizeBytes === 0 ? 'states no size' : `says ${blob.sizeBytes}`;
  return new PullError(
    'metadata-malformed',
    `blob ${blob.digest} has ${what} at ${url.host} where its manifest ${stated}`,
    { hint: 'what the registry or a proxy before it holds is damaged, or the image was made wrongly' },
  );
}
