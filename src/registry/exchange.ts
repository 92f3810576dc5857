import { setTimeout as sleep } from 'node:timers/promises';
import { type Failure, PullError, toFailure } from '../format/error.js';
import { bookWait, type RetryPolicy, type Wait, type WaitBudget } from './backoff.js';
import type { Credentials } from './credentials.js';
import {
  createHttpClient,
  decodeResponse,
  type HttpClient,
  type HttpResponse,
  type RequestHeaders,
} from './http-client.js';
import { describeNetworkError, type FailedHost, isNotTls, mayBeTls } from './network-error.js';
import { requestLine } from './redaction.js';
import { firstErrorMessage, serverError } from './refusal.js';
import {
  type Decision,
  decide,
  MAX_BROKEN_RESPONSES,
  type RequestHistory,
  type SentRequest,
} from './retry-rules.js';
import type { TokenCache } from './token.js';
import { apiHost, isLoopback, originOf, type Transport } from './transport.js';

/** A session's `host`, `host[:port]` as references have it; requests go to its API host. */
export interface SessionOptions extends Transport {
  readonly repository: string;
  readonly plainHttp?: boolean;
  /** http is tried when https fails. */
  readonly insecure?: boolean;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  readonly retryPolicy: RetryPolicy;
  /** Shared with all others of the pull. */
  readonly waits: WaitBudget;
  readonly tokens: TokenCache;
  readonly userAgent: string;
  /** Left out, all requests are anonymous. */
  readonly credentials?: Credentials;
  /** Receives a line about each request, for a log. Left out, no line is made. */
  readonly debug?: (line: string) => void;
}

/** What the requests of one session share. */
export interface SessionContext {
  readonly options: SessionOptions;
  readonly client: HttpClient;
  /** The origins left to try (two only until one has answered), the present one first. */
  readonly origins: URL[];
  /** Aborted when the session closes: ends all waits. */
  readonly closing: AbortController;
}

/** The state of a session that has sent nothing yet. */
export function createContext(options: SessionOptions): SessionContext {
  return {
    options,
    client: createHttpClient({ ...options, transport: options }),
    origins: originsToTry(options),
    closing: new AbortController(),
  };
}

/** Loopback hosts are tried in http first, other hosts never unless the user allows it. */
function originsToTry({ host, plainHttp, insecure }: SessionOptions): URL[] {
  const api = apiHost(host);
  const http = originOf('http', api);
  if (plainHttp === true) return [http];
  const https = originOf('https', api);
  if (isLoopback(http.hostname)) return [http, https];
  return insecure === true ? [https, http] : [https];
}

/** The origin that answers, or is tried next. */
export function currentOrigin(context: SessionContext): URL {
  return context.origins[0]!;
}

/** One small request to the registry or its token server. */
export interface SmallRequest {
  readonly headers: RequestHeaders;
  /** Above this a 2xx body is not read; `HttpResponse.tooLong` is set. */
  readonly maxBytes: number;
  readonly method?: 'HEAD' | 'POST';
  readonly body?: string;
  /** A digest proves the response: it may come over http where storage may. */
  readonly isProven?: boolean;
}

/** A response and who sent it. */
export interface ServedResponse {
  readonly response: HttpResponse;
  /** `host[:port]` of the server that sent it. */
  readonly host: string;
  /** A redirect has left the origin of the request: this server gets no credentials. */
  readonly isCrossOrigin: boolean;
  readonly action: Decision['action'];
}

/**
 * The outcome of one request: a deliberate response, a final failure, or one that is worth a retry.
 */
type Exchange = ServedResponse | { readonly final: PullError } | FailedRequest;

interface FailedRequest extends FailedHost {
  readonly retryReason: string;
  readonly hint?: string | undefined;
  readonly error?: unknown;
  /** Body bytes that karma has counted. */
  readonly receivedBytes?: number;
}

/**
 * Sends a request to the registry until there is a response that is none of: redirect, network
 * failure, "wait", server error (but to HEAD).
 * @throws PullError as `exchange`; `network-hopeless` when one response after another broke off
 */
export async function exchangeWithRetries(
  context: SessionContext,
  path: string,
  request: SmallRequest,
): Promise<ServedResponse> {
  const countBreak = createBreakCounter();
  for (;;) {
    const origin = currentOrigin(context);
    let result = await exchange(context, new URL(path, origin), request);
    if (origin !== currentOrigin(context)) continue;
    if (context.origins.length > 1 && speaksOtherScheme(result, origin)) {
      result = (await tryNextOrigin(context, path, request)) ?? result;
    }
    if ('final' in result) throw result.final;
    if ('response' in result) {
      context.origins.length = 1;
      return result;
    }
    countBreak(result);
    await context.options.retryPolicy.miss(networkMiss(result.retryReason, result.hint), result);
  }
}

/**
 * Counts the responses to one request that broke off.
 * @throws PullError `network-hopeless` for one too many
 */
export function createBreakCounter(): (failed: FailedRequest) => void {
  let count = 0;
  return ({ retryReason, hint, receivedBytes = 0 }) => {
    if (receivedBytes === 0 || ++count < MAX_BROKEN_RESPONSES) return;
    const message = `${retryReason} (${MAX_BROKEN_RESPONSES} times for the same answer)`;
    throw new PullError('network-hopeless', message, { hint });
  };
}

/**
 * The response of the next scheme, which is the session's from then on; undefined when that is no
 * better: the first failure is the one to report then.
 */
async function tryNextOrigin(
  context: SessionContext,
  path: string,
  request: SmallRequest,
): Promise<Exchange | undefined> {
  const next = context.origins[1]!;
  const result = await exchange(context, new URL(path, next), request);
  if ('final' in result && !isNotTls(result.final.cause)) throw result.final;
  if (!('response' in result)) return undefined;
  context.origins.splice(0, context.origins.length, next);
  return result;
}

/**
 * Whether the other scheme may be the right one. A TLS server responds to plain HTTP in this way:
 * 400 from Go and nginx, no HTTP or the end from others. An insecure host may have http alone,
 * where nothing need listen at the port of https.
 */
function speaksOtherScheme(result: Exchange, origin: URL): boolean {
  if (origin.protocol === 'https:') return !('response' in result);
  if ('final' in result) return false;
  if (!('response' in result)) return mayBeTls(result.error);
  return result.response.status === 400 && !result.isCrossOrigin;
}

/** A network failure in the form that `RetryPolicy` counts. */
export function networkMiss(message: string, hint?: string): Failure {
  return toFailure(new PullError('network-hopeless', message, { hint }));
}

/**
 * Sends one request, follows redirects and waits where a server asks for it. Authorization goes to
 * the first origin only.
 * @throws PullError `redirect-refused` for a POST that is redirected: its body is a secret meant
 *   for one server
 */
export async function exchange(
  context: SessionContext,
  start: URL,
  request: SmallRequest,
): Promise<Exchange> {
  const { method = 'GET' } = request;
  const { origin } = start;
  let url = start;
  let { headers } = request;
  let isCrossOrigin = false;
  for (let redirects = 0, waits = 0; ; ) {
    const sent = await sendOnce(context, url, { ...request, headers }, { origin, redirects, waits });
    if (!('decision' in sent)) return sent;
    const { response, decision } = sent;
    const { host } = url;
    switch (decision.action) {
      case 'redirect':
        redirects++;
        isCrossOrigin ||= decision.to.origin !== origin;
        if (isCrossOrigin) headers = withoutAuthorization(headers);
        url = decision.to;
        break;
      case 'wait': {
        waits++;
        const reason = firstErrorMessage(response.body);
        await waitAsRequested(context, { host, waitMs: decision.waitMs, reason, isCrossOrigin });
        break;
      }
      case 'retry': {
        const retryReason = serverError(host, response.status, response.body);
        return { retryReason, host, sign: decision.sign };
      }
      default: {
        if (decision.action === 'give-up' && decision.error !== undefined) throw decision.error;
        const decoded = method === 'HEAD' ? response : await decodeResponse(response, host, request.maxBytes);
        return { response: decoded, host, isCrossOrigin, action: decision.action };
      }
    }
  }
}

type Progress = Pick<SentRequest, 'origin' | 'redirects'> & Pick<RequestHistory, 'waits'>;

/** Sends one request to one URL. Returns the response with the decision, or the failure. */
async function sendOnce(
  { client, options }: SessionContext,
  url: URL,
  request: SmallRequest,
  { origin, redirects, waits }: Progress,
): Promise<{ response: HttpResponse; decision: Decision } | Exclude<Exchange, ServedResponse>> {
  const { method = 'GET' } = request;
  const startedMs = performance.now();
  const log = (decision: Pick<Decision, 'retryReason' | 'failureReason'>, status: number, bytes: number) => {
    const { retryReason, failureReason } = decision;
    const logged = { method, url, status, bytes, startedMs, retryReason, failureReason };
    options.debug?.(requestLine(logged, performance.now()));
  };
  let receivedBytes = 0;
  const received = (bytes: number) => {
    receivedBytes += bytes;
    options.retryPolicy.received(bytes);
  };
  let response: HttpResponse;
  try {
    response = await client.send({ ...request, url, received });
  } catch (error) {
    if (error instanceof PullError) throw error;
    const { message, hint, final, sign } = describeNetworkError(error, url.host);
    log(final ? { failureReason: message } : { retryReason: message }, 0, 0);
    if (final) return { final: new PullError('network-hopeless', message, { hint, cause: error }) };
    return { retryReason: message, hint, error, receivedBytes, host: url.host, sign };
  }
  const { status, headers, body } = response;
  const allowHttp = request.isProven === true && options.allowHttpStorage === true;
  const none = { renewals: 0, contradictions: 0, givesRanges: false };
  const history = { ...none, waits, nowMs: Date.now(), random: Math.random() };
  const decision = decide({ url, status, headers }, { method, origin, redirects, allowHttp }, history);
  // Whether there is another token to try is up to the caller.
  log(decision.action === 'renew-token' ? {} : decision, status, body.length);
  return { response, decision };
}

function withoutAuthorization(headers: RequestHeaders): RequestHeaders {
  const { authorization: _dropped, ...others } = headers;
  return others;
}

async function waitAsRequested({ options, closing }: SessionContext, wait: Wait): Promise<void> {
  bookWait(options.waits, wait, Date.now());
  const resume = options.retryPolicy.pause(wait);
  try {
    await sleep(wait.waitMs, undefined, { signal: closing.signal });
  } finally {
    resume();
  }
}
