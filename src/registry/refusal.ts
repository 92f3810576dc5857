import { PullError } from '../format/error.js';
import { isObject } from '../format/strict-json.js';
import type { Wait } from './backoff.js';
import { type ResponseHeaders, single } from './headers.js';
import { escapeForeignText, MAX_SCANNED_LENGTH } from './redaction.js';

/** The subject of a failed request, for its message. */
export interface Requested {
  readonly host: string;
  readonly repository: string;
  /** A tag or digest of a manifest, the digest of a blob; empty for a list of tags. */
  readonly name: string;
  readonly kind: 'manifest' | 'blob' | 'tags';
}

/** Names the request in a sentence: `the manifest latest`. */
export function nameOf({ kind, name, repository }: Requested): string {
  return kind === 'tags' ? `the list of tags of ${repository}` : `the ${kind} ${name}`;
}

/**
 * The first message (else code) in an error body, or the message of a storage's XML or the title of
 * a web page: without secrets, in quotes, with control characters escaped, and cut to 200
 * characters. Undefined when there is none (OCI distribution-spec, "Error Codes").
 */
export function firstErrorMessage(body: Buffer): string | undefined {
  const { message = '', code = '' } = firstError(body) ?? {};
  const text = message === '' ? code : message;
  if (text !== '') return escapeForeignText(text);
  const reason = markupMessage(body.subarray(0, MAX_SCANNED_LENGTH).toString('utf8'));
  return reason === undefined ? undefined : escapeForeignText(reason);
}

/** The error of a storage (Amazon S3, "REST Error Responses"), or the title of a web page. */
function markupMessage(text: string): string | undefined {
  if (!isMarkup(text)) return undefined;
  const element = (name: string): string[] => {
    const [, content = ''] = new RegExp(`<${name}>([^<]*)<`, 'i').exec(text) ?? [];
    const value = content
      .replaceAll(/&(lt|gt|amp|quot|apos);/g, (_, entity: string) => ENTITIES[entity]!)
      .trim();
    return value === '' ? [] : [value];
  };
  const message = [...element('Code'), ...element('Message')].join(': ');
  return message === '' ? element('title')[0] : message;
}

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/** Whether a text is HTML or XML, which no manifest, config or token is. */
function isMarkup(text: string): boolean {
  return /^[\ufeff\s]*</.test(text);
}

/**
 * The error for a web page from `host` in place of `requested`.
 * @returns undefined when the body is no web page
 */
export function webPageError(host: string, requested: string, body: Buffer): PullError | undefined {
  if (!isMarkup(body.subarray(0, MAX_SCANNED_LENGTH).toString('utf8'))) return undefined;
  return unexpectedAnswer(
    `${host} answers with a web page where ${requested} should be${serverSays(body, ', ')}`,
  );
}

/** The message for a failure of a server, with the server's own text if it sent one. */
export function serverError(host: string, status: number, body: Buffer): string {
  return `${host} answers ${status}${serverSays(body, ': ')}`;
}

/** The server's own text behind `prefix`, if it sent one. */
export function serverSays(body: Buffer, prefix = '; it says '): string {
  const reason = firstErrorMessage(body);
  return reason === undefined ? '' : `${prefix}${reason}`;
}

/** Whether a status is a failure of the server: 5xx, and 408, as proxies end slow requests. */
export function isServerFailure(status: number): boolean {
  return status >= 500 || status === 408;
}

/** The error for a response that no registry should send. */
export function unexpectedAnswer(message: string): PullError {
  return new PullError('answer-unexpected', message, {
    hint: 'a proxy or a login page may have answered in place of the registry: log in to the network in a browser, or check HTTPS_PROXY; --debug logs each request',
  });
}

function firstError(body: Buffer): { message: string; code: string } | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
  const errors = isObject(parsed) ? parsed['errors'] : undefined;
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (!isObject(first)) return undefined;
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  return { message: text(first['message']), code: text(first['code']) };
}

/** The credentials of a refused request. */
export interface Tried {
  /** The source of the credentials, for a message; undefined: the request was anonymous. */
  readonly from: string | undefined;
  /** The sources that were searched. */
  readonly sources: readonly string[];
}

/** The hint for a refused request. `host` as references have it. */
export function loginHint(host: string, { from, sources }: Tried): string {
  const login = `"docker login ${host}" or "podman login ${host}"`;
  if (from !== undefined)
    return `check that this account may read the repository, or log in with another: ${login}`;
  const name = 'check the name, as a repository that does not exist is often answered in this way';
  const looked =
    sources.length === 0 ? '' : `; searched for credentials for ${host} in ${sources.join(', ')}`;
  return `log in with ${login}, or ${name}${looked}`;
}

/** For workers and storage, which do not know the credentials that were tried. */
const UNKNOWN_HINT =
  'check that you may read this repository, and log in with "docker login" or "podman login"';

/** Error codes that mean missing rights, whatever the status (OCI distribution-spec). */
const DENIED = ['UNAUTHORIZED', 'DENIED'];

/**
 * The error for a response that refuses a request: `unauthorized` for 401, 403 and 407, and for an
 * error code that says so; `image-not-found` or `blob-not-found` for 404, `network-hopeless` for
 * 429, `answer-unexpected` for every other status.
 */
export function refusal(
  status: number,
  requested: Requested,
  body: Buffer,
  tried?: Tried,
  headers: ResponseHeaders = {},
): PullError {
  const { host, repository, name, kind } = requested;
  const reason = serverSays(body);
  const denied =
    status === 400 || status === 404 ? DENIED.includes(firstError(body)?.code ?? '') : status === 403;
  if (status === 401 || denied) {
    const hint = tried === undefined ? UNKNOWN_HINT : loginHint(host, tried);
    const whose = tried?.from === undefined ? '' : ` with the credentials of ${tried.from}`;
    const sentence =
      status === 401 && tried !== undefined && whose === ''
        ? `${host} requires a login to read ${repository}`
        : `${host} denies access to ${repository}${whose}`;
    return new PullError('unauthorized', `${sentence}${reason}`, { hint });
  }
  if (status === 429) return tooManyRequests(host, host, body, false, headers);
  if (status === 407) {
    return new PullError('unauthorized', `the proxy before ${host} requires credentials`, {
      hint: 'put USER:PASSWORD@ before its host in HTTP_PROXY',
    });
  }
  if (status === 404 && kind === 'manifest') {
    const isDigest = name.includes(':');
    const joint = isDigest ? '@' : ':';
    const list = `zpull tags ${host}/${repository} lists the tags that there are`;
    return new PullError('image-not-found', `${host} has no image ${repository}${joint}${name}${reason}`, {
      hint: isDigest
        ? `check the repository and the digest; an image may be deleted once its tag has moved: ${list}`
        : `check the repository and the tag for typing errors: ${list}`,
    });
  }
  if (status === 404 && kind === 'tags') {
    return new PullError('image-not-found', `${host} has no repository ${repository}${reason}`, {
      hint: 'check the name for typing errors; some registries answer this for private repositories too',
    });
  }
  if (status === 404) {
    return new PullError('blob-not-found', `${host} has no blob ${name} in ${repository}${reason}`, {
      hint: 'the image is incomplete in this registry: it has to be pushed again',
    });
  }
  return unexpectedAnswer(`${host} answered ${status} to the request for ${nameOf(requested)}${reason}`);
}

/**
 * As `refusal`, for a response of `storage` (`host[:port]`), to which a redirect of
 * `requested.host` led: it never receives credentials, so a login changes nothing.
 */
export function storageRefusal(
  status: number,
  requested: Requested,
  body: Buffer,
  storage: string,
): PullError {
  if (status === 429) return tooManyRequests(`the storage ${storage}`, storage, body, true);
  if (status !== 401 && status !== 403) return refusal(status, { ...requested, host: storage }, body);
  const { host } = requested;
  return new PullError(
    'unauthorized',
    `the storage ${storage}, to which ${host} redirects for ${nameOf(requested)}, denies access (${status})${serverSays(body)}`,
    {
      hint: `credentials are never sent to ${storage}: pull again to get another URL of the blob, or report it to the operator of ${host}`,
    },
  );
}

/** The error for a 429 of `host`, which the message calls `server`. */
export function tooManyRequests(
  server: string,
  host: string,
  body: Buffer,
  isCrossOrigin = false,
  headers: ResponseHeaders = {},
): PullError {
  const limited = { host, reason: firstErrorMessage(body), isCrossOrigin };
  const sentence = `${server} refuses further requests for now (429${statedLimit(headers)})`;
  return rateLimited(limited, sentence, statedReset(headers, Date.now()));
}

/** The limit that Docker Hub states: `100;w=21600` is 100 pulls in six hours. */
function statedLimit(headers: ResponseHeaders): string {
  const [, count, seconds] = /^(\d{1,9});w=(\d{1,9})$/.exec(single(headers['ratelimit-limit']) ?? '') ?? [];
  return count === undefined ? '' : `: its limit is ${count} in ${formatWait(Number(seconds) * 1000)}`;
}

/** More seconds than in ten years are a time since 1970. */
const MAX_RESET_SECONDS = 315_360_000;

/** When requests are accepted again, as GitHub, Docker Hub and the IETF's draft state it. */
function statedReset(headers: ResponseHeaders, nowMs: number): string | undefined {
  const text = single(headers['x-ratelimit-reset'] ?? headers['ratelimit-reset']) ?? '';
  if (!/^\d{1,10}$/.test(text)) return undefined;
  const seconds = Number(text);
  const resetMs = seconds > MAX_RESET_SECONDS ? seconds * 1000 : nowMs + seconds * 1000;
  return resetMs > nowMs ? `after ${formatTime(resetMs)}` : undefined;
}

/** A time to wait as a person says it: `95 s`, `59 min`, `6 h`. */
export function formatWait(waitMs: number): string {
  const seconds = Math.ceil(waitMs / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

/** Unix time as `2026-01-31 12:05 UTC`. */
export function formatTime(timeMs: number): string {
  const iso = new Date(Math.min(timeMs, MAX_TIME_MS)).toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

/** The year 9999, beyond which ISO 8601 has another form. */
const MAX_TIME_MS = 253_402_300_799_000;

/**
 * The error for a server that limits the rate of requests; `when` says from when on it accepts them
 * again.
 */
export function rateLimited(
  { host, reason, isCrossOrigin }: Omit<Wait, 'waitMs'>,
  sentence: string,
  when = 'later',
): PullError {
  const login = `try again ${when}, or log in with "docker login" or "podman login" if that raises the limit`;
  const storage = `wait, and try again ${when}; it is a storage, which never sees credentials`;
  return new PullError(
    'network-hopeless',
    `${sentence}${reason === undefined ? '' : `; it says ${reason}`}`,
    {
      hint: `${host} limits the rate of requests: ${isCrossOrigin === true ? storage : login}`,
    },
  );
}
