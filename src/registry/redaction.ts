import type { Secret } from './auth-file.js';

/** Values that are kept: a command has a few registries, each with a password and a token, and what is used again is kept again. */
const MAX_SECRETS = 64;

/** Shorter ones are parts of ordinary words: to leave them out would tell what they are. */
const MIN_SECRET_LENGTH = 4;

/** What this thread gives to servers, each value with the forms in which they may repeat it; the one that was used last is last. */
const inUse = new Map<string, readonly string[]>();

/** Notes a password or an identity token that is about to be used. */
export function noteSecret(secret: Secret): void {
  if (secret.kind === 'identity-token') note(secret.token);
  else {
    note(Buffer.from(`${secret.username}:${secret.password}`).toString('base64'));
    note(secret.password);
  }
}

/** Notes the value of an Authorization header: a token, or credentials and the password in them (RFC 6750, RFC 7617). */
export function noteAuthorization(value: string): void {
  const [, scheme = '', credentials = ''] = /^(\S+) +(\S+)$/.exec(value) ?? [];
  note(credentials);
  if (scheme.toLowerCase() !== 'basic') return;
  const text = Buffer.from(credentials, 'base64').toString();
  note(text.slice(text.indexOf(':') + 1));
}

function note(secret: string): void {
  if (secret.length < MIN_SECRET_LENGTH) return;
  const known = inUse.get(secret) ?? formsOf(secret);
  inUse.delete(secret);
  inUse.set(secret, known);
  const [oldest] = inUse.keys();
  if (inUse.size > MAX_SECRETS && oldest !== undefined) inUse.delete(oldest);
}

/** As it is, in a URL, in a form and in base64, also without the padding of base64, as some leave that out. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const inForm = new URLSearchParams({ '': secret }).toString().slice(1);
  const forms = [secret, encodeURIComponent(bytes.toString()), inForm, bytes.toString('base64')];
  const unpadded = [...forms, bytes.toString('base64url')].map((form) => form.replace(/(?:=|%3D)+$/, ''));
  return [...new Set([...unpadded.filter(({ length }) => length >= MIN_SECRET_LENGTH), secret])];
}

/** A text that others wrote, with `…` for each secret in use that it repeats, in upper or lower case. */
function withoutSecretsInUse(text: string): string {
  // A token may begin with a password.
  const forms = [...inUse.values()].flat().sort((a, b) => b.length - a.length);
  const literal = (form: string) => new RegExp(form.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'gi');
  return forms.reduce((masked, form) => masked.replaceAll(literal(form), '…'), text);
}

/** One request that is over. */
export interface LoggedRequest {
  readonly method: string;
  readonly url: URL;
  /** The Range header. */
  readonly range?: string | undefined;
  /** 0 when there was no answer. */
  readonly status: number;
  readonly bytes: number;
  readonly startedMs: number;
  /** Why the same is asked for again, if it is. */
  readonly retryReason?: string | undefined;
  /** Why what came is of no use, if it is not. */
  readonly failureReason?: string | undefined;
}

/** The path of a blob has at most some 350 characters; signed URLs, whose queries are left out, have no longer ones. */
const MAX_PATH_LENGTH = 512;

/**
 * A line about a request for who watches (`--debug`): what was asked, what came, how long it took. Queries are secret
 * (signatures) and stay out, as do all headers but Range.
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

/** What is shown of a registry's own words. */
const MAX_MESSAGE_LENGTH = 200;

/** What is looked at of them: what is secret is taken out before they are cut. */
export const MAX_SCANNED_LENGTH = 4096;

/** Someone else's text in quotes, safe to show on a terminal. */
export function escapeForeignText(foreign: string): string {
  const text = withoutSecrets(foreign);
  const short = text.length > MAX_MESSAGE_LENGTH ? `${text.slice(0, MAX_MESSAGE_LENGTH)}…` : text;
  // C1 controls and the marks that turn the direction of text around: JSON leaves them as they are.
  return JSON.stringify(short).replaceAll(
    /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * Proxies and caches repeat what failed before them: a URL with the signature in its query, a user in it, or the
 * Authorization that they were given. Others repeat what they were given without a word around it.
 */
function withoutSecrets(text: string): string {
  return withoutSecretsInUse(text)
    .slice(0, MAX_SCANNED_LENGTH)
    .replaceAll(/(:\/\/)[^\s/?#"'<>]*@/g, '$1')
    .replaceAll(/(:\/\/[^\s?#"'<>]*)[?#][^\s"'<>]*/g, '$1?…')
    .replaceAll(/\b(basic|bearer)\s+[\w.~+/=-]+/gi, '$1 …');
}
