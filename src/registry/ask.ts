import { setTimeout as sleep } from 'node:timers/promises';
import { type Failure, PullError, toFailure } from '../format/error.js';
import { bookWait, type Patience, type Wait, type WaitBudget } from './backoff.js';
import { classify, type Next } from './classify.js';
import type { Credentials } from './credentials.js';
import {
  type Answer,
  createHttpClient,
  decodeAnswer,
  type HttpClient,
  type RequestHeaders,
} from './http-client.js';
import { describeNetworkError, type FailedHost, isNotTls, mayBeTls } from './network-error.js';
import { requestLine } from './redaction.js';
import { firstErrorMessage, serverError } from './refusal.js';
import type { TokenCache } from './token.js';
import type { Transport } from './transport.js';
import { apiHost, isLoopback, originOf } from './urls.js';

/** A session's `host`, `host[:port]` as references have it, is asked at its API host. */
export interface SessionOptions extends Transport {
  readonly repository: string;
  readonly plainHttp?: boolean;
  /** Asked in http when https fails. */
  readonly insecure?: boolean;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  readonly patience: Patience;
  /** Shared with all others of the pull. */
  readonly waits: WaitBudget;
  readonly tokens: TokenCache;
  readonly userAgent: string;
  /** Left out: everything is asked for anonymously. */
  readonly credentials?: Credentials;
  /** Hears a line about each request, for a log. Left out, no line is made. */
  readonly debug?: (line: string) => void;
}

/** What one session's questions share. */
export interface Context {
  readonly options: SessionOptions;
  readonly client: HttpClient;
  /** The origins left to try (two only before a loopback host has answered), the present one first. */
  readonly origins: URL[];
  /** Aborted when the session ends: nobody waits any more. */
  readonly ending: AbortController;
}

/** The state of a session that has asked nothing yet. */
export function createContext(options: SessionOptions): Context {
  return {
    options,
    client: createHttpClient({ ...options, transport: options }),
    origins: originsToTry(options),
    ending: new AbortController(),
  };
}

/** Loopback hosts are asked in http first; no other host is ever asked in http unless the user allowed it. */
function originsToTry({ host, plainHttp, insecure }: SessionOptions): URL[] {
  const api = apiHost(host);
  const http = originOf('http', api);
  if (plainHttp === true) return [http];
  const https = originOf('https', api);
  if (isLoopback(http.hostname)) return [http, https];
  return insecure === true ? [https, http] : [https];
}

/** The origin that answers, or is asked next. */
export function currentOrigin(context: Context): URL {
  return context.origins[0]!;
}

/**
 * The answer that is none of: redirect, network failure, "wait", server error (but to HEAD).
 * @throws PullError as `exchange`; `network-hopeless` when one answer after another did not come to its end
 */
export async function askPatiently(
  context: Context,
  path: string,
  headers: RequestHeaders,
  maxBytes: number,
  asking: Asking = {},
): Promise<Answered> {
  const breaks = createBreaks();
  for (;;) {
    const origin = currentOrigin(context);
    let result = await exchange(context, new URL(path, origin), headers, maxBytes, asking);
    if (origin !== currentOrigin(context)) continue;
    if (context.origins.length > 1 && speaksOtherwise(result, origin)) {
      result = (await tryNextOrigin(context, path, headers, maxBytes, asking)) ?? result;
    }
    if ('final' in result) throw result.final;
    if ('answer' in result) {
      context.origins.length = 1;
      return result;
    }
    breaks.count(result);
    await context.options.patience.miss(networkMiss(result.again, result.hint), result);
  }
}

/**
 * Answers to one question that may break off, or take too long, after some of their bytes: they are asked for from the start again, so
 * a server that never ends one feeds karma for ever. As many as of a range (`MAX_FRUITLESS`).
 */
const MAX_BREAKS = 5;

/** Counts the answers to one question that ended before their time. */
export interface Breaks {
  /** @throws PullError `network-hopeless` for one too many */
  count(failed: Failed): void;
}

export function createBreaks(): Breaks {
  let count = 0;
  return {
    count({ again, hint, receivedBytes = 0 }) {
      if (receivedBytes === 0 || ++count < MAX_BREAKS) return;
      throw new PullError('network-hopeless', `${again} (${MAX_BREAKS} times for the same answer)`, { hint });
    },
  };
}

/**
 * The answer of the next scheme, which is the session's from then on; undefined when that is no better: the first
 * failure is the one to report then.
 */
async function tryNextOrigin(
  context: Context,
  path: string,
  headers: RequestHeaders,
  maxBytes: number,
  asking: Asking,
): Promise<Exchange | undefined> {
  const next = context.origins[1]!;
  const result = await exchange(context, new URL(path, next), headers, maxBytes, asking);
  if ('final' in result && !isNotTls(result.final.cause)) throw result.final;
  if (!('answer' in result)) return undefined;
  context.origins.splice(0, context.origins.length, next);
  return result;
}

/** A network failure as patience takes it. */
export function networkMiss(message: string, hint?: string): Failure {
  return toFailure(new PullError('network-hopeless', message, { hint }));
}

/** An answer and who gave it. */
export interface Answered {
  readonly answer: Answer;
  /** `host[:port]` of the server that answered. */
  readonly host: string;
  /** Redirects led away from the origin that was asked: whatever the answer says, it gets no credentials for it. */
  readonly isElsewhere: boolean;
  readonly next: Next['next'];
}

/** What one question came to: an answer on purpose, or a failure worth asking again. */
type Exchange = Answered | { readonly final: PullError } | Failed;

interface Failed extends FailedHost {
  /** Why it is worth asking again. */
  readonly again: string;
  readonly hint?: string | undefined;
  readonly error?: unknown;
  /** Body bytes that karma has heard of. */
  readonly receivedBytes?: number;
}

/**
 * Whether the other scheme may be the right one. A TLS server takes plain HTTP in this way: 400 from Go and nginx, no
 * HTTP or the end from others. An insecure host may have http alone, where nothing need listen at the port of https.
 */
function speaksOtherwise(result: Exchange, origin: URL): boolean {
  if (origin.protocol === 'https:') return !('answer' in result);
  if ('final' in result) return false;
  if (!('answer' in result)) return mayBeTls(result.error);
  return result.answer.status === 400 && !result.isElsewhere;
}

/** What makes a request more than a GET. */
export interface Asking {
  readonly method?: 'HEAD' | 'POST';
  readonly body?: string;
  /** A digest proves the answer: it may come over http where storage may. */
  readonly isProven?: boolean;
}

/**
 * Follows redirects, waits where told to. Authorization goes to the first origin only.
 * @throws PullError `redirect-refused` for a POST that is redirected: its body is a secret meant for one server
 */
export async function exchange(
  context: Context,
  start: URL,
  headers: RequestHeaders,
  maxBytes: number,
  asking: Asking = {},
): Promise<Exchange> {
  const { client, options } = context;
  const { method = 'GET' } = asking;
  const { origin } = start;
  let url = start;
  let sent = headers;
  let isElsewhere = false;
  for (let hops = 0, waited = 0; ; ) {
    let receivedBytes = 0;
    const startedMs = performance.now();
    const tell = (next: Pick<Next, 'again' | 'givenUp'>, status: number, bytes: number) => {
      const told = { method, url, status, bytes, startedMs, again: next.again, givenUp: next.givenUp };
      options.debug?.(requestLine(told, performance.now()));
    };
    const received = (bytes: number) => {
      receivedBytes += bytes;
      options.patience.received(bytes);
    };
    let answer: Answer;
    try {
      answer = await client.get({ url, headers: sent, maxBytes, received, ...asking });
    } catch (error) {
      if (error instanceof PullError) throw error;
      const { message, hint, final, sign } = describeNetworkError(error, url.host);
      tell(final ? { givenUp: message } : { again: message }, 0, 0);
      if (final) return { final: new PullError('network-hopeless', message, { hint, cause: error }) };
      return { again: message, hint, error, receivedBytes, host: url.host, sign };
    }
    const { status, body } = answer;
    const none = { renewals: 0, contradictions: 0, givesRanges: false };
    const known = { ...none, waited, nowMs: Date.now(), random: Math.random() };
    const allowHttp = asking.isProven === true && options.allowHttpStorage === true;
    const response = { url, status, headers: answer.headers };
    const next = classify(response, { method, origin, hops, allowHttp }, known);
    // Whether there is another token to ask with is for the caller to say.
    tell(next.next === 'renew-token' ? {} : next, status, body.length);
    switch (next.next) {
      case 'redirect':
        hops++;
        isElsewhere ||= next.to.origin !== origin;
        if (isElsewhere) sent = withoutAuthorization(sent);
        url = next.to;
        break;
      case 'wait':
        waited++;
        await wait(context, {
          host: url.host,
          waitMs: next.waitMs,
          words: firstErrorMessage(body),
          isElsewhere,
        });
        break;
      case 'fail':
        return { again: serverError(url.host, status, body), host: url.host, sign: next.sign };
      default:
        if (next.next === 'give-up' && next.error !== undefined) throw next.error;
        if (method !== 'HEAD') answer = await decodeAnswer(answer, url.host, maxBytes);
        return { answer, host: url.host, isElsewhere, next: next.next };
    }
  }
}

function withoutAuthorization(headers: RequestHeaders): RequestHeaders {
  const { authorization: _dropped, ...others } = headers;
  return others;
}

async function wait({ options, ending }: Context, wait: Wait): Promise<void> {
  bookWait(options.waits, wait, Date.now());
  const goOn = options.patience.pause(wait);
  try {
    await sleep(wait.waitMs, undefined, { signal: ending.signal });
  } finally {
    goOn();
  }
}
