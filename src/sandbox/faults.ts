import { validateHeaderName, validateHeaderValue } from 'node:http';
import { PullError } from '../format/error.js';

/** The requests that a rule matches; absent fields match everything. */
export interface FaultMatch {
  /**
   * A part of the path or a regular expression between slashes: `/blobs.*3f/`. Ignores the query.
   */
  readonly path?: string;
  readonly method?: string;
  /** `a-b`, `a-` or `-n` as in the Range header, `any` or `none`. */
  readonly range?: string;
  /**
   * Only the n-th matching request, or the n-th to the m-th, from 1; counts requests that other
   * rules answer too.
   */
  readonly nth?: number | readonly [number, number];
}

/** The change of the answer. */
export type FaultAction =
  | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
  /** Closes the connection after this many body bytes; 0: without an answer. */
  | { readonly closeAfterBytes: number }
  /** Sends the body at this rate; `closeAfterBytes`: then closes the connection. */
  | { readonly drip: { readonly bytesPerSecond: number; readonly closeAfterBytes?: number } }
  /** Sends nothing more after this many body bytes but keeps the connection open; 0: no answer. */
  | { readonly stallAfterBytes: number }
  /** Sends the right answer after a delay. */
  | { readonly firstByteAfterMs: number }
  /** Sends the right answer with additional headers. */
  | { readonly withHeaders: Readonly<Record<string, string>> }
  /** Offset in the blob of a byte to invert. */
  | { readonly flipByteAt: number }
  /** Answers a range request with 200 and the complete body. */
  | { readonly ignoreRange: true }
  /** Answers a range request with at most this many bytes and a matching Content-Range. */
  | { readonly shortRange: number }
  /** Answers a range request with the right bytes and this Content-Range. */
  | { readonly wrongContentRange: string }
  /** Redirects a blob with 307 to a signed URL on a second origin. */
  | { readonly redirect: { readonly expiresAfterMs?: number; readonly expiresAfterRequests?: number } }
  /**
   * Answers 401 with a token challenge unless the request has a valid token; `always`: even then.
   */
  | { readonly challenge: { readonly always?: boolean; readonly expiresAfterMs?: number } }
  | { readonly retryAfter: { readonly status: 429 | 503; readonly seconds: number } };

export interface FaultRule {
  readonly match: FaultMatch;
  /** `then` in a fault file. */
  readonly action: FaultAction;
}

/** The parts of a request that rules match. */
export interface FaultRequest {
  readonly method: string;
  /** Decoded, without the query. */
  readonly path: string;
  /** The Range header. */
  readonly range: string | undefined;
}

/**
 * Returns a function that chooses the action for each request: that of the first matching rule
 * whose action `applies`, or undefined. It counts the matching requests of every rule.
 */
export function createFaults(
  rules: readonly FaultRule[],
): (request: FaultRequest, applies: (action: FaultAction) => boolean) => FaultAction | undefined {
  const tests = rules.map(({ match }) => requestTest(match));
  const counts = new Uint32Array(rules.length);
  return (request, applies) => {
    let chosen: FaultAction | undefined;
    for (const [row, rule] of rules.entries()) {
      if (tests[row]?.(request) !== true || !applies(rule.action)) continue;
      const count = ++counts[row]!;
      if (chosen === undefined && isTurn(count, rule.match.nth)) chosen = rule.action;
    }
    return chosen;
  };
}

function requestTest(match: FaultMatch): (request: FaultRequest) => boolean {
  const matchesPath = pathTest(match.path);
  return ({ method, path, range }) =>
    (match.method === undefined || match.method === method) &&
    matchesPath(path) &&
    matchesRange(match.range, range);
}

function pathTest(path: string | undefined): (path: string) => boolean {
  if (path === undefined) return () => true;
  const pattern = pathPattern(path);
  return pattern === undefined ? (text) => text.includes(path) : (text) => pattern.test(text);
}

/**
 * Returns the regular expression between slashes, or undefined for a plain part of a path.
 * @throws SyntaxError for a malformed regular expression
 */
function pathPattern(path: string): RegExp | undefined {
  return path.length > 2 && path.startsWith('/') && path.endsWith('/')
    ? new RegExp(path.slice(1, -1))
    : undefined;
}

function matchesRange(match: string | undefined, range: string | undefined): boolean {
  if (match === undefined) return true;
  if (match === 'none' || match === 'any') return (range === undefined) === (match === 'none');
  return range === `bytes=${match}`;
}

function isTurn(count: number, nth: FaultMatch['nth']): boolean {
  if (nth === undefined) return true;
  const [first, last] = typeof nth === 'number' ? [nth, nth] : nth;
  return count >= first && count <= last;
}

/** More rules are a mistake; every request is matched against each. */
const MAX_RULES = 1000;

/** Node's longest timer. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type Json = Record<string, unknown>;

/** A value with its name in messages: `fault rule 2: then.status`. */
interface Field {
  readonly name: string;
  readonly value: unknown;
}

type Parser<T> = (field: Field) => T;
type Parsers = Readonly<Record<string, Parser<unknown>>>;
type Parsed<P extends Parsers> = { [Name in keyof P]: ReturnType<P[Name]> };

/**
 * Parses the rules of a fault file.
 * @throws PullError `option-malformed` with the number of the rule, from 1, and the field
 */
export function parseFaults(json: unknown): FaultRule[] {
  if (!Array.isArray(json)) throw malformed('the fault rules', 'must be a JSON list');
  if (json.length > MAX_RULES) throw malformed('the fault rules', `are more than ${MAX_RULES}`);
  return (json as unknown[]).map((value, row) => parseRule({ name: `fault rule ${row + 1}`, value }));
}

function parseRule(rule: Field): FaultRule {
  const fields = objectOf(rule, ['match', 'then']);
  const match = { name: `${rule.name}: match`, value: fields['match'] ?? {} };
  return {
    match: parseFields(match, {}, MATCH_FIELDS),
    action: parseAction({ name: `${rule.name}: then`, value: fields['then'] }),
  };
}

const MATCH_FIELDS = {
  path: parsePath,
  method: text(/^[A-Z]+$/, 'a method in capitals'),
  range: text(/^(any|none|\d+-\d*|-\d+)$/, '"any", "none" or bytes like "0-99"'),
  nth: parseNth,
};

const ACTION_FIELDS = {
  status: integer(200, 599),
  headers: parseHeaders,
  body: text(/^/, 'a text'),
  closeAfterBytes: integer(0),
  stallAfterBytes: integer(0),
  drip: object({ bytesPerSecond: integer(1) }, { closeAfterBytes: integer(0) }),
  trickle: integer(1),
  firstByteAfterMs: integer(0, MAX_TIMER_MS),
  withHeaders: parseHeaders,
  flipByteAt: integer(0),
  ignoreRange: oneOf([true], 'true'),
  shortRange: integer(1),
  wrongContentRange: text(/^[\x20-\x7e]+$/, 'a Content-Range like "bytes 0-9/100"'),
  redirect: object({}, { expiresAfterMs: integer(0), expiresAfterRequests: integer(0) }),
  challenge: object({}, { always: oneOf([true, false], 'true or false'), expiresAfterMs: integer(0) }),
  retryAfter: object({ status: oneOf([429, 503], '429 or 503'), seconds: integer(0) }, {}),
};

/** The fields that say what kind of action it is; `headers` and `body` belong to `status`. */
const ACTION_KINDS = Object.keys(ACTION_FIELDS).filter((name) => name !== 'headers' && name !== 'body');

function parseAction(then: Field): FaultAction {
  const fields = objectOf(then, Object.keys(ACTION_FIELDS));
  const [kind, ...others] = ACTION_KINDS.filter((name) => fields[name] !== undefined);
  if (kind === undefined || others.length > 0)
    throw malformed(then.name, `must have exactly one of ${ACTION_KINDS.join(', ')}`);
  if (kind !== 'status' && (fields['headers'] !== undefined || fields['body'] !== undefined))
    throw malformed(then.name, `has headers or a body, which go with status only, beside ${kind}`);
  const { trickle, ...action } = parseFields(then, {}, ACTION_FIELDS);
  return trickle === undefined ? (action as FaultAction) : { drip: { bytesPerSecond: trickle } };
}

function parsePath(field: Field): string {
  const path = text(/./, 'a part of a path')(field);
  try {
    pathPattern(path);
  } catch (error) {
    throw malformed(field.name, 'is not a regular expression', error);
  }
  return path;
}

function parseNth({ name, value }: Field): number | [number, number] {
  if (!Array.isArray(value)) return integer(1)({ name, value });
  const [first, last] = value as unknown[];
  const from = integer(1)({ name, value: first });
  if (value.length !== 2) throw malformed(name, 'must be a number or a pair [from, to]');
  return [from, integer(from)({ name, value: last })];
}

function parseHeaders({ name, value }: Field): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [header, content] of Object.entries(jsonObject({ name, value }))) {
    const field = { name: `${name}.${header}`, value: content };
    headers[header] = text(/^/, 'a text')(field);
    try {
      validateHeaderName(header);
      validateHeaderValue(header, headers[header]);
    } catch (error) {
      throw malformed(field.name, 'is not a possible HTTP header', error);
    }
  }
  return headers;
}

function object<R extends Parsers, O extends Parsers>(required: R, optional: O) {
  return (field: Field) => parseFields(field, required, optional);
}

function parseFields<R extends Parsers, O extends Parsers>(
  parent: Field,
  required: R,
  optional: O,
): Parsed<R> & Partial<Parsed<O>> {
  const parsers = { ...required, ...optional };
  const fields = objectOf(parent, Object.keys(parsers));
  const parsed: Json = {};
  for (const [name, parse] of Object.entries(parsers)) {
    if (fields[name] === undefined && !Object.hasOwn(required, name)) continue;
    parsed[name] = parse({ name: `${parent.name}.${name}`, value: fields[name] });
  }
  return parsed as Parsed<R> & Partial<Parsed<O>>;
}

function objectOf(field: Field, known: readonly string[]): Json {
  const fields = jsonObject(field);
  const unknown = Object.keys(fields).find((name) => !known.includes(name));
  if (unknown !== undefined) throw malformed(field.name, `has an unknown field "${unknown}"`);
  return fields;
}

function jsonObject({ name, value }: Field): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw malformed(name, 'must be a JSON object');
  return value as Json;
}

function text(pattern: RegExp, what: string): Parser<string> {
  return ({ name, value }) => {
    if (typeof value !== 'string' || !pattern.test(value)) throw malformed(name, `must be ${what}`);
    return value;
  };
}

function oneOf<const T>(values: readonly T[], what: string): Parser<T> {
  return ({ name, value }) => {
    const found = values.find((known) => known === value);
    if (found === undefined) throw malformed(name, `must be ${what}`);
    return found;
  };
}

function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Parser<number> {
  return ({ name, value }) => {
    if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max)
      return value as number;
    const bounds = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw malformed(name, `must be a whole number ${bounds}`);
  };
}

function malformed(name: string, problem: string, cause?: unknown): PullError {
  return new PullError('option-malformed', `${name} ${problem}`, {
    hint: 'a rule is { "match": { "path", "method", "range", "nth" }, "then": { … } }; docs/faults.md lists every field',
    cause,
  });
}
