import { PullError } from '../format/error.js';

/** Error bodies are a few hundred bytes; nothing behind this is read. */
export const MAX_ERROR_BODY_BYTES = 64 * 1024;

/** What is shown of a registry's own words. */
const MAX_MESSAGE_LENGTH = 200;

/** What was asked for, for the sentence that says it was not given. */
export interface Wanted {
  readonly host: string;
  readonly repository: string;
  /** A tag or digest of a manifest, or the digest of a blob. */
  readonly name: string;
  readonly kind: 'manifest' | 'blob';
}

/**
 * The first message (else code) in an error body, in quotes with control characters escaped and cut to 200
 * characters; undefined when there is none (OCI distribution-spec, "Error Codes").
 */
export function firstErrorMessage(body: Buffer): string | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
  const errors = isRecord(parsed) ? parsed['errors'] : undefined;
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (!isRecord(first)) return undefined;
  const { message, code } = first;
  const text = typeof message === 'string' && message !== '' ? message : code;
  return typeof text === 'string' && text !== '' ? escapeForeignText(text) : undefined;
}

/** Someone else's text in quotes, safe to show on a terminal. */
function escapeForeignText(text: string): string {
  const short = text.length > MAX_MESSAGE_LENGTH ? `${text.slice(0, MAX_MESSAGE_LENGTH)}…` : text;
  // C1 controls and the marks that turn the direction of text around: JSON leaves them as they are.
  return JSON.stringify(short).replaceAll(
    /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

/**
 * The error for an answer that means no: `unauthorized` for 401, 403 and 407, `image-not-found` or `blob-not-found` for
 * 404, `answer-unexpected` for every other status. `body` may hold the registry's own words.
 */
export function refusal(status: number, wanted: Wanted, body: Buffer): PullError {
  const { host, repository, name, kind } = wanted;
  const message = firstErrorMessage(body);
  const words = message === undefined ? '' : `; it says ${message}`;
  if (status === 401) {
    return new PullError(
      'unauthorized',
      `${host} does not let us read ${repository} without logging in${words}`,
      {
        hint: 'check the name: a repository that does not exist is often answered in this way, as is a private one',
      },
    );
  }
  if (status === 407) {
    return new PullError('unauthorized', `the proxy before ${host} wants credentials`, {
      hint: 'put USER:PASSWORD@ before its host in HTTP_PROXY',
    });
  }
  if (status === 403) {
    return new PullError('unauthorized', `${host} denies access to ${repository}${words}`, {
      hint: 'check that you may read this repository',
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
  return new PullError(
    'answer-unexpected',
    `${host} answered ${status} to the request for ${kind} ${name}${words}`,
  );
}
