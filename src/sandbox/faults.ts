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
export function pathPattern(path: string): RegExp | undefined {
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
