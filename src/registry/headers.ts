export type ResponseHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** The header's value; its first, if the server sent several. */
export function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0];
}

/**
 * What a `Content-Range` header says, half-open; `sizeBytes` undefined where the header has `*`.
 */
export interface ContentRange {
  /** Undefined for `bytes *\/size`, the form of a 416 response. */
  readonly range: { readonly start: number; readonly end: number } | undefined;
  readonly sizeBytes: number | undefined;
}

const FORM = /^bytes (?:(\d{1,16})-(\d{1,16})|\*)\/(?:(\d{1,16})|\*)$/i;

/**
 * The header as half-open numbers, or undefined when it is not `bytes a-b/size`, `bytes a-b/*` or
 * `bytes *\/size` with safe integers in order (RFC 9110, 14.4).
 */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = FORM.exec(header ?? '');
  if (match === null) return undefined;
  const [, first, last, size] = match;
  const sizeBytes = size === undefined ? undefined : Number(size);
  if (sizeBytes !== undefined && !Number.isSafeInteger(sizeBytes)) return undefined;
  if (first === undefined || last === undefined) {
    return sizeBytes === undefined ? undefined : { range: undefined, sizeBytes };
  }
  const start = Number(first);
  const end = Number(last) + 1;
  if (!Number.isSafeInteger(end) || start >= end || (sizeBytes !== undefined && end > sizeBytes))
    return undefined;
  return { range: { start, end }, sizeBytes };
}

/** The `Range` header, inclusive, for a half-open range. */
export function rangeHeader(start: number, end: number): string {
  return `bytes=${start}-${end - 1}`;
}

/** A `Content-Length` in bytes; undefined when there is none, NaN when it is no number. */
export function parseContentLength(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const sizeBytes = /^\d{1,16}$/.test(header) ? Number(header) : Number.NaN;
  return Number.isSafeInteger(sizeBytes) ? sizeBytes : Number.NaN;
}

/** One challenge of a `WWW-Authenticate` header: scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** A challenge header is a line or two; the rest of a longer one is ignored. */
const MAX_HEADER_LENGTH = 8192;

/** More challenges than there are registered schemes mean nothing. */
const MAX_CHALLENGES = 16;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[-._~+/0-9A-Za-z]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/sy;
const NAME = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*/y;
const SPACE = /[ \t]+/y;
const SEPARATOR = /[ \t,]*/y;

/** Consumes the match of a pattern and returns it (its group, if it has one); undefined for none. */
type Accept = (pattern: RegExp) => string | undefined;

/**
 * The challenges of one or several `WWW-Authenticate` headers, in order (RFC 9110, 11.2 and
 * 11.6.1). Reading stops at the first text that is no challenge; those before it count.
 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const text = (typeof header === 'string' ? header : (header ?? []).join(', ')).slice(0, MAX_HEADER_LENGTH);
  let at = 0;
  const accept: Accept = (pattern) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  const challenges: Challenge[] = [];
  accept(SEPARATOR);
  while (challenges.length < MAX_CHALLENGES) {
    const scheme = accept(TOKEN);
    if (scheme === undefined) break;
    const parameters = new Map<string, string>();
    challenges.push({ scheme: scheme.toLowerCase(), parameters });
    if (accept(SPACE) !== undefined && accept(TOKEN68) === undefined) {
      if (!readParameters(accept, parameters)) break;
    }
    accept(SEPARATOR);
  }
  return challenges;
}

/** Reads `name=value` pairs up to the next challenge. Returns false for malformed pairs. */
function readParameters(accept: Accept, into: Map<string, string>): boolean {
  for (;;) {
    const name = accept(NAME)?.toLowerCase();
    if (name === undefined) return true;
    const quoted = accept(QUOTED);
    const value = quoted === undefined ? accept(TOKEN) : quoted.replaceAll(/\\(.)/gs, '$1');
    if (value === undefined) return false;
    // The first of two equal names counts: a later one must not redirect the token request.
    if (!into.has(name)) into.set(name, value);
    accept(SEPARATOR);
  }
}

/** Codings that change bytes (RFC 9110, 8.4.1; RFC 7932; RFC 8878); storage sends others, too. */
const CODINGS: ReadonlySet<string> = new Set([
  'gzip',
  'x-gzip',
  'compress',
  'x-compress',
  'deflate',
  'br',
  'zstd',
]);

/** How much longer than its content an encoded body may be: gzip headers, stored blocks. */
export const MAX_CODING_BYTES = 4096;

/** Whether a Content-Encoding names a coding that changes bytes. */
export function isCoded(encoding: string | undefined): boolean {
  return codingsOf(encoding).length > 0;
}

/** The labels of a Content-Encoding that name a coding, in lower case. */
export function codingsOf(encoding = ''): string[] {
  const labels = encoding.split(',').map((label) => label.trim().toLowerCase());
  return labels.filter((label) => CODINGS.has(label));
}

/** `Retry-After: 0` must not make a busy loop; the wait after a miss is one second, too. */
const MIN_WAIT_MS = 1_000;

const SECONDS = /^\d+$/;
const IMF_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * How many milliseconds a `Retry-After` header asks to wait from `nowMs` (Unix time), at least one
 * second; undefined when there is no header or it is neither seconds nor an IMF-fixdate (RFC 9110,
 * 10.2.3).
 */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  // A number with more digits than any time is a long wait, too.
  if (SECONDS.test(header))
    return Math.min(Number.MAX_SAFE_INTEGER, Math.max(MIN_WAIT_MS, Number(header) * 1000));
  if (!IMF_DATE.test(header)) return undefined;
  const dateMs = Date.parse(header);
  return Number.isNaN(dateMs) ? undefined : Math.max(MIN_WAIT_MS, dateMs - nowMs);
}
