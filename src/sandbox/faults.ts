import { validateHeaderName, validateHeaderValue } from 'node:http';
import { PullError } from '../format/error.js';

/** Which requests a rule is about; what is absent matches everything. */
export interface FaultMatch {
  /** A part of the path, or a regular expression between slashes: `/blobs.*3f/`. The query is not looked at. */
  readonly path?: string;
  readonly method?: string;
  /** `a-b`, `a-` or `-n` as in the header, `any` or `none`. */
  readonly range?: string;
  /** Only the n-th matching request, or the n-th to the m-th, counted from 1, whichever rule answers the others. */
  readonly nth?: number | readonly [number, number];
}

/** What is done to the answer: one of these. */
export type FaultAction =
  | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
  /** The connection is closed after so many body bytes; 0: before any answer. */
  | { readonly closeAfterBytes: number }
  /** The body comes at so many bytes a second; the connection is closed after so many, if that is said. */
  | { readonly drip: { readonly bytesPerSecond: number; readonly closeAfterBytes?: number } }
  /** Nothing more is sent after so many body bytes, the connection stays open; 0: no answer at all. */
  | { readonly stallAfterBytes: number }
  /** The answer is as it should be and begins after so long. */
  | { readonly firstByteAfterMs: number }
  /** The answer is as it should be, with these headers besides. */
  | { readonly withHeaders: Readonly<Record<string, string>> }
  /** Offset in the whole blob of a byte that is sent inverted. */
  | { readonly flipByteAt: number }
  /** A range is answered with 200 and the whole body. */
  | { readonly ignoreRange: true }
  /** A range is answered with at most so many of its bytes, and says so. */
  | { readonly shortRange: number }
  /** A range is answered as asked, but under this Content-Range. */
  | { readonly wrongContentRange: string }
  /** A blob is answered with 307 to a signed URL on another origin, good for so long and for so many requests. */
  | { readonly redirect: { readonly expiresAfterMs?: number; readonly expiresAfterRequests?: number } }
  /** 401 with a token challenge unless the request carries a good token; `always`: even then. */
  | { readonly challenge: { readonly always?: boolean; readonly expiresAfterMs?: number } }
  | { readonly retryAfter: { readonly status: 429 | 503; readonly seconds: number } };

export interface FaultRule {
  readonly match: FaultMatch;
  /** `then` in a fault file. */
  readonly action: FaultAction;
}

/** What the rules look at in a request. */
export interface FaultRequest {
  readonly method: string;
  /** Decoded, without the query. */
  readonly path: string;
  /** The Range header as it came. */
  readonly range: string | undefined;
}

/**
 * A function that names the action for each request in turn: the first rule that matches and whose action `applies`,
 * or undefined. It holds the count of matching requests of every rule.
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
 * The regular expression that `path` holds between slashes, or undefined when it is a plain part of a path.
 * @throws SyntaxError when it is a malformed one
 */
function pathPattern(path: string): RegExp | undefined {
  return path.length > 2 && path.startsWith('/') && path.endsWith('/')
    ? new RegExp(path.slice(1, -1))
    : undefined;
}

function matchesRange(wanted: string | undefined, range: string | undefined): boolean {
  if (wanted === undefined) return true;
  if (wanted === 'none' || wanted === 'any') return (range === undefined) === (wanted === 'none');
  return range === `bytes=${wanted}`;
}

function isTurn(count: number, nth: FaultMatch['nth']): boolean {
  if (nth === undefined) return true;
  const [first, last] = typeof nth === 'number' ? [nth, nth] : nth;
  return count >= first && count <= last;
}

/** More rules than this are a mistake; each is tried at every request. */
const MAX_RULES = 1000;

/** The longest time of a timer in Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type Json = Record<string, unknown>;

/** A value of a rule with the name it goes by in messages: `fault rule 2: then.status`. */
interface Field {
  readonly name: string;
  readonly value: unknown;
}

/**
 * The fault rules that a JSON value states.
 * @throws PullError `option-malformed` that names the rule (counted from 1) and the field
 */
export function parseFaults(json: unknown): FaultRule[] {
  if (!Array.isArray(json)) throw malformed('the fault rules', 'must be a JSON list');
  if (json.length > MAX_RULES) throw malformed('the fault rules', `are more than ${MAX_RULES}`);
  return (json as unknown[]).map((value, row) => parseRule({ name: `fault rule ${row + 1}`, value }));
}

function parseRule(rule: Field): FaultRule {
  const fields = objectOf(rule, ['match', 'then']);
  const prefix = `${rule.name}:`;
  return {
    match: parseMatch({ name: `${prefix} match`, value: fields['match'] ?? {} }),
    action: parseAction({ name: `${prefix} then`, value: fields['then'] }),
  };
}

function parseMatch(match: Field): FaultMatch {
  const fields = objectOf(match, ['path', 'method', 'range', 'nth']);
  return {
    ...optional(match, fields, 'path', parsePath),
    ...optional(match, fields, 'method', (field) => textOf(field, /^[A-Z]+$/, 'a method in capitals')),
    ...optional(match, fields, 'range', (field) =>
      textOf(field, /^(any|none|\d+-\d*|-\d+)$/, '"any", "none" or bytes like "0-99"'),
    ),
    ...optional(match, fields, 'nth', parseNth),
  };
}

function parsePath(field: Field): string {
  const path = textOf(field, /./, 'a part of a path');
  try {
    pathPattern(path);
  } catch (error) {
    throw malformed(field.name, 'is not a regular expression', error);
  }
  return path;
}

function parseNth(field: Field): number | [number, number] {
  const { value } = field;
  if (!Array.isArray(value)) return integerOf(field, 1);
  const [first, last] = value as unknown[];
  const from = integerOf({ name: field.name, value: first }, 1);
  if (value.length !== 2) throw malformed(field.name, 'must be a number or a pair [from, to]');
  return [from, integerOf({ name: field.name, value: last }, from)];
}

/** One parser for each kind of action, under the field that gives it away. */
const ACTIONS: Readonly<Record<string, (field: Field, then: Field, fields: Json) => FaultAction>> = {
  status: (status, then, fields) => ({
    status: integerOf(status, 200, 599),
    ...optional(then, fields, 'headers', parseHeaders),
    ...optional(then, fields, 'body', (field) => textOf(field, /^/, 'a text')),
  }),
  closeAfterBytes: (field) => ({ closeAfterBytes: integerOf(field, 0) }),
  stallAfterBytes: (field) => ({ stallAfterBytes: integerOf(field, 0) }),
  drip: (field) => {
    const fields = objectOf(field, ['bytesPerSecond', 'closeAfterBytes']);
    return {
      drip: {
        bytesPerSecond: integerOf(
          { name: `${field.name}.bytesPerSecond`, value: fields['bytesPerSecond'] },
          1,
        ),
        ...optional(field, fields, 'closeAfterBytes', (bytes) => integerOf(bytes, 0)),
      },
    };
  },
  trickle: (field) => ({ drip: { bytesPerSecond: integerOf(field, 1) } }),
  firstByteAfterMs: (field) => ({ firstByteAfterMs: integerOf(field, 0, MAX_TIMER_MS) }),
  withHeaders: (field) => ({ withHeaders: parseHeaders(field) }),
  flipByteAt: (field) => ({ flipByteAt: integerOf(field, 0) }),
  ignoreRange: (field) => {
    if (field.value !== true) throw malformed(field.name, 'must be true');
    return { ignoreRange: true };
  },
  shortRange: (field) => ({ shortRange: integerOf(field, 1) }),
  wrongContentRange: (field) => ({
    wrongContentRange: textOf(field, /^[\x20-\x7e]+$/, 'a Content-Range like "bytes 0-9/100"'),
  }),
  redirect: (field) => {
    const fields = objectOf(field, ['expiresAfterMs', 'expiresAfterRequests']);
    return {
      redirect: {
        ...optional(field, fields, 'expiresAfterMs', (ms) => integerOf(ms, 0)),
        ...optional(field, fields, 'expiresAfterRequests', (count) => integerOf(count, 0)),
      },
    };
  },
  challenge: (field) => {
    const fields = objectOf(field, ['always', 'expiresAfterMs']);
    return {
      challenge: {
        ...optional(field, fields, 'always', booleanOf),
        ...optional(field, fields, 'expiresAfterMs', (ms) => integerOf(ms, 0)),
      },
    };
  },
  retryAfter: (field) => {
    const fields = objectOf(field, ['status', 'seconds']);
    const status = fields['status'];
    if (status !== 429 && status !== 503) throw malformed(`${field.name}.status`, 'must be 429 or 503');
    return {
      retryAfter: {
        status,
        seconds: integerOf({ name: `${field.name}.seconds`, value: fields['seconds'] }, 0),
      },
    };
  },
};

function parseAction(then: Field): FaultAction {
  const fields = objectOf(then, [...Object.keys(ACTIONS), 'headers', 'body']);
  const kinds = Object.keys(ACTIONS).filter((kind) => fields[kind] !== undefined);
  const [kind = ''] = kinds;
  const parse = ACTIONS[kind];
  if (parse === undefined || kinds.length !== 1) {
    throw malformed(then.name, `must have exactly one of ${Object.keys(ACTIONS).join(', ')}`);
  }
  if (kind !== 'status' && (fields['headers'] !== undefined || fields['body'] !== undefined)) {
    throw malformed(then.name, `has headers or a body, which go with status only, beside ${kind}`);
  }
  return parse({ name: `${then.name}.${kind}`, value: fields[kind] }, then, fields);
}

function parseHeaders(field: Field): Record<string, string> {
  const headers: Record<string, string> = {};
  if (typeof field.value !== 'object' || field.value === null || Array.isArray(field.value)) {
    throw malformed(field.name, 'must be a JSON object');
  }
  for (const [name, value] of Object.entries(field.value as Json)) {
    const header = { name: `${field.name}.${name}`, value };
    headers[name] = textOf(header, /^/, 'a text');
    try {
      validateHeaderName(name);
      validateHeaderValue(name, headers[name]);
    } catch (error) {
      throw malformed(header.name, 'is not a possible HTTP header', error);
    }
  }
  return headers;
}

/** `{ [name]: parsed }` when the field is there, else `{}`. */
function optional<Name extends string, T>(
  parent: Field,
  fields: Json,
  name: Name,
  parse: (field: Field) => T,
): { [K in Name]?: T } {
  const value = fields[name];
  if (value === undefined) return {};
  const parsed: { [K in Name]?: T } = {};
  parsed[name] = parse({ name: `${parent.name}.${name}`, value });
  return parsed;
}

function objectOf({ name, value }: Field, known: readonly string[]): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed(name, 'must be a JSON object');
  }
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined) throw malformed(name, `has an unknown field "${unknown}"`);
  return value as Json;
}

function textOf({ name, value }: Field, pattern: RegExp, what: string): string {
  if (typeof value !== 'string' || !pattern.test(value)) throw malformed(name, `must be ${what}`);
  return value;
}

function booleanOf({ name, value }: Field): boolean {
  if (typeof value !== 'boolean') throw malformed(name, 'must be true or false');
  return value;
}

function integerOf({ name, value }: Field, min: number, max: number = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
    const bounds = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw malformed(name, `must be a whole number ${bounds}`);
  }
  return value as number;
}

function malformed(name: string, problem: string, cause?: unknown): PullError {
  return new PullError('option-malformed', `${name} ${problem}`, {
    hint: 'a rule is { "match": { "path", "method", "range", "nth" }, "then": { … } }; docs/faults.md lists every field',
    cause,
  });
}
