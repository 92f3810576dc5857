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
export function withoutSecretsInUse(text: string): string {
  // A token may begin with a password.
  const forms = [...inUse.values()].flat().sort((a, b) => b.length - a.length);
  const literal = (form: string) => new RegExp(form.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'gi');
  return forms.reduce((masked, form) => masked.replaceAll(literal(form), '…'), text);
}
