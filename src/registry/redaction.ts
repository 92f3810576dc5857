import type { Secret } from './auth-file.js';

/** Secrets to mask, the latest: a command has a few registries with a password and a token. */
const MAX_SECRETS = 64;

/** Shorter secrets are parts of ordinary words: to mask those would disclose them. */
const MIN_SECRET_LENGTH = 4;

/** The secrets that this thread sends, in the forms in which they may come back. */
const inUse = new Map<string, readonly string[]>();

/** Notes a password or an identity token that is about to be used. */
export function noteSecret(secret: Secret): void {
  if (secret.kind === 'identity-token') note(secret.token);
  else {
    note(Buffer.from(`${secret.username}:${secret.password}`).toString('base64'));
    note(secret.password);
  }
}

/** Notes an Authorization value, and the password in Basic credentials (RFC 7617). */
export function noteAuthorization(value: string): void {
  const [, scheme = '', credentials = ''] = /^(\S+) +(\S+)$/.exec(value) ?? [];
  note(credentials);
  if (scheme.toLowerCase() !== 'basic') return;
  const text = Buffer.from(credentials, 'base64').toString();
  note(text.slice(text.indexOf(':') + 1));
}

function note(secret: string): void {
  if (secret.length < MIN_SECRET_LENGTH) return;
  const forms = inUse.get(secret) ?? formsOf(secret);
  inUse.delete(secret);
  inUse.set(secret, forms);
  const [oldest] = inUse.keys();
  if (inUse.size > MAX_SECRETS && oldest !== undefined) inUse.delete(oldest);
}

/** Unchanged, in a URL, in a form and in base64, with and without padding. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const inForm = new URLSearchParams({ '': secret }).toString().slice(1);
  const forms = [secret, encodeURIComponent(bytes.toString()), inForm, bytes.toString('base64')];
  const unpadded = [...forms, bytes.toString('base64url')].map((form) => form.replace(/(?:=|%3D)+$/, ''));
  return [...new Set([...unpadded.filter(({ length }) => length >= MIN_SECRET_LENGTH), secret])];
}

/** Replaces each secret in use, in upper or lower case, by `…`. */
function withoutSecretsInUse(text: string): string {
  // A token may begin with a password.
  const forms = [...inUse.values()].flat().sort((a, b) => b.length - a.length);
  const literal = (form: string) => new RegExp(form.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'gi');
  return forms.reduce((masked, form) => masked.replaceAll(literal(form), '…'), text);
}

/** A request that has ended. */
export interface LoggedRequest {
  readonly method: string;
  readonly url: URL;
  /** The Range header. */
  readonly range?: string | undefined;
  /** 0 when there was no response. */
  readonly status: number;
  readonly bytes: number;
  readonly startedMs: number;
  /** Why the request is sent again, if it is. */
  readonly retryReason?: string | undefined;
  /** Why the response is of no use, if it is not. */
  readonly failureReason?: string | undefined;
}

/** Paths of blobs and of signed URLs without queries have at most some 350 characters. */
const MAX_PATH_LENGTH = 512;

/**
 * The line of `--debug` for a request: what was requested, what came, how long it took. It has no
 * query, which may be a signature, and no header but Range.
 */
export function requestLine(request: LoggedRequest, nowMs: number): string {
  const { method, url, range, status, bytes, startedMs, retryReason, failureReason } = request;
  const path = cut(withoutSecretsInUse(url.pathname));
  const what = `${method} ${url.host}${path}${range === undefined ? '' : ` ${range}`}`;
  const came = `${status === 0 ? 'no answer' : status}, ${bytes} bytes, ${Math.round(nowMs - startedMs)} ms`;
  if (retryReason !== undefined) return `${what}: ${came}; again, as ${retryReason}`;
  return `${what}: ${came}${failureReason === undefined ? '' : `; given up, as ${failureReason}`}`;
}

function cut(path: string): string {
  const cutLength = path.length - MAX_PATH_LENGTH;
  return cutLength <= 0 ? path : `${path.slice(0, MAX_PATH_LENGTH)}… (${cutLength} characters more)`;
}

/** The most of a server's message that is shown. */
const MAX_MESSAGE_LENGTH = 200;

/** The most of it that is scanned: secrets are masked before it is cut. */
export const MAX_SCANNED_LENGTH = 4096;

/** A foreign text in quotes, safe to show on a terminal. */
export function escapeForeignText(foreign: string): string {
  const text = withoutSecrets(foreign);
  const short = text.length > MAX_MESSAGE_LENGTH ? `${text.slice(0, MAX_MESSAGE_LENGTH)}…` : text;
  // C1 controls and the marks that change the direction of text: JSON does not escape them.
  return JSON.stringify(short).replaceAll(
    /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * Masks what proxies and caches repeat of a failed request: a URL with the signature in its query
 * or a user in it, the value of Authorization, or a secret alone.
 */
function withoutSecrets(text: string): string {
  return withoutSecretsInUse(text)
    .slice(0, MAX_SCANNED_LENGTH)
    .replaceAll(/(:\/\/)[^\s/?#"'<>]*@/g, '$1')
    .replaceAll(/(:\/\/[^\s?#"'<>]*)[?#][^\s"'<>]*/g, '$1?…')
    .replaceAll(/\b(basic|bearer)\s+[\w.~+/=-]+/gi, '$1 …');
}
