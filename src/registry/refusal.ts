import { PullError } from '../format/error.js';
import { isObject } from '../format/strict-json.js';
import type { Wait } from './backoff.js';
import { escapeForeignText, MAX_SCANNED_LENGTH } from './redaction.js';

/** What was asked for, for the sentence that says it was not given. */
export interface Requested {
  readonly host: string;
  readonly repository: string;
  /** A tag or digest of a manifest, or the digest of a blob. */
  readonly name: string;
  readonly kind: 'manifest' | 'blob';
}

/**
 * The first message (else code) in an error body, or what a storage's XML or a web page says, without what may be secret, in quotes with control characters escaped
 * and cut to 200 characters; undefined when there is none (OCI distribution-spec, "Error Codes").
 */
export function firstErrorMessage(body: Buffer): string | undefined {
  const { message = '', code = '' } = firstError(body) ?? {};
  const text = message === '' ? code : message;
  if (text !== '') return escapeForeignText(text);
  const words = markupWords(body.subarray(0, MAX_SCANNED_LENGTH).toString('utf8'));
  return words === undefined ? undefined : escapeForeignText(words);
}

/** `<Code>` and `<Message>` of a storage's error (Amazon S3, "REST Error Responses"), else the title of a web page. */
function markupWords(text: string): string | undefined {
  if (!isMarkup(text)) return undefined;
  const element = (name: string): string[] => {
    const [, content = ''] = new RegExp(`<${name}>([^<]*)<`, 'i').exec(text) ?? [];
    const words = content
      .replaceAll(/&(lt|gt|amp|quot|apos);/g, (_, entity: string) => ENTITIES[entity]!)
      .trim();
    return words === '' ? [] : [words];
  };
  const words = [...element('Code'), ...element('Message')].join(': ');
  return words === '' ? element('title')[0] : words;
}

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/** Whether a text is HTML or XML, which no manifest, config or token is. */
function isMarkup(text: string): boolean {
  return /^[\ufeff\s]*</.test(text);
}

/**
 * The error for a web page of `host` in the place of what was requested.
 * @returns undefined when the body is none
 */
export function webPageError(host: string, requested: string, body: Buffer): PullError | undefined {
  if (!isMarkup(body.subarray(0, MAX_SCANNED_LENGTH).toString('utf8'))) return undefined;
  return unexpectedAnswer(
    `${host} answers with a web page where ${requested} should be${serverSays(body, ', ')}`,
  );
}

/** That a server failed, in its own words if it has any. */
export function serverError(host: string, status: number, body: Buffer): string {
  return `${host} answers ${status}${serverSays(body, ': ')}`;
}

/** The server's own words behind a text, if it has any. */
export function serverSays(body: Buffer, text = '; it says '): string {
  const words = firstErrorMessage(body);
  return words === undefined ? '' : `${text}${words}`;
}

/** Whether a status is a failure of the server and no answer of its own: 5xx, and 408, with which proxies end a slow request. */
export function isServerFailure(status: number): boolean {
  return status >= 500 || status === 408;
}

/** The error for an answer that no registry should give. */
export function unexpectedAnswer(message: string): PullError {
  return new PullError('answer-unexpected', message, {
    hint: 'a proxy or a login page may have answered in place of the registry: --debug tells of each request',
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

/** What a request was let in with, or not. */
export interface Tried {
  /** Whose credentials were used, in words; undefined: it was anonymous. */
  readonly from: string | undefined;
  /** Where credentials were looked for. */
  readonly places: readonly string[];
}

/** How to get in where a request was refused. `host` as references have it. */
export function loginHint(host: string, { from, places }: Tried): string {
  const login = `"docker login ${host}" or "podman login ${host}"`;
  if (from !== undefined)
    return `check that this account may read the repository, or log in with another: ${login}`;
  const name = 'check the name, as a repository that does not exist is often answered in this way';
  const looked =
    places.length === 0 ? '' : `credentials for ${host} were looked for in ${places.join(', ')}: `;
  return `${looked}log in with ${login}, or ${name}`;
}

/** Where no one knows what was tried: in a worker, or before a storage behind a redirect. */
const UNKNOWN_HINT =
  'check that you may read this repository, and log in with "docker login" or "podman login"';

/** Codes with which a registry says that it is a matter of rights, whatever the status (OCI distribution-spec). */
const DENIED = ['UNAUTHORIZED', 'DENIED'];

/**
 * The error for an answer that means no: `unauthorized` for 401, 403 and 407, and where the registry says so in words;
 * `image-not-found` or `blob-not-found` for 404, `answer-unexpected` for every other status. `body` may hold the
 * registry's own words.
 */
export function refusal(status: number, requested: Requested, body: Buffer, tried?: Tried): PullError {
  const { host, repository, name, kind } = requested;
  const words = serverSays(body);
  const denied =
    status === 400 || status === 404 ? DENIED.includes(firstError(body)?.code ?? '') : status === 403;
  if (status === 401 || denied) {
    const hint = tried === undefined ? UNKNOWN_HINT : loginHint(host, tried);
    const whose = tried?.from === undefined ? '' : ` with the credentials of ${tried.from}`;
    const sentence =
      status === 401 && tried !== undefined && whose === ''
        ? `${host} does not let us read ${repository} without logging in`
        : `${host} denies access to ${repository}${whose}`;
    return new PullError('unauthorized', `${sentence}${words}`, { hint });
  }
  if (status === 429)
    return rateLimited(
      { host, words: firstErrorMessage(body) },
      `${host} does not answer any more for now (429)`,
    );
  if (status === 407) {
    return new PullError('unauthorized', `the proxy before ${host} wants credentials`, {
      hint: 'put USER:PASSWORD@ before its host in HTTP_PROXY',
    });
  }
  if (status === 404 && kind === 'manifest') {
    const joint = name.includes(':') ? '@' : ':';
    return new PullError('image-not-found', `${host} has no image ${repository}${joint}${name}${words}`, {
      hint: 'check the repository and the tag for typing errors',
    });
  }
  if (status === 404) {
    return new PullError('blob-not-found', `${host} has no blob ${name} in ${repository}${words}`, {
      hint: 'the image is incomplete in this registry: it has to be pushed again',
    });
  }
  return unexpectedAnswer(`${host} answered ${status} to the request for ${kind} ${name}${words}`);
}

/**
 * As `refusal`, for an answer of `storage` (`host[:port]`), to which a redirect of `requested.host` led: it never sees credentials, so a
 * login changes nothing.
 */
export function storageRefusal(
  status: number,
  requested: Requested,
  body: Buffer,
  storage: string,
): PullError {
  if (status === 429) {
    const limited = { host: storage, words: firstErrorMessage(body), isCrossOrigin: true };
    return rateLimited(limited, `the storage ${storage} does not answer any more for now (429)`);
  }
  if (status !== 401 && status !== 403) return refusal(status, { ...requested, host: storage }, body);
  const { host, kind, name } = requested;
  return new PullError(
    'unauthorized',
    `the storage ${storage}, to which ${host} redirects for ${kind} ${name}, denies access (${status})${serverSays(body)}`,
    {
      hint: `credentials are never sent to ${storage}: pull again to get another URL of the blob, or report it to the operator of ${host}`,
    },
  );
}

/** The error for a server that will not be asked any more for now. */
export function rateLimited(
  { host, words, isCrossOrigin }: Omit<Wait, 'waitMs'>,
  sentence: string,
): PullError {
  const login = 'try again later, or log in with "docker login" or "podman login" if that raises the limit';
  const storage = 'wait, and try again later; it is a storage, which never sees credentials';
  return new PullError('network-hopeless', `${sentence}${words === undefined ? '' : `; it says ${words}`}`, {
    hint: `${host} limits how often it may be asked: ${isCrossOrigin === true ? storage : login}`,
  });
}
