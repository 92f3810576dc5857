/** One challenge of a `WWW-Authenticate` header: scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** A challenge header is a line or two; what is longer is read no further. */
const MAX_HEADER_LENGTH = 8192;

/** More challenges than there are registered schemes mean nothing. */
const MAX_CHALLENGES = 16;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[-._~+/0-9A-Za-z]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/sy;
const EQUALS = /[ \t]*=[ \t]*/y;
const SPACE = /[ \t]+/y;
const SEPARATOR = /[ \t,]*/y;

/**
 * The challenges of one or several `WWW-Authenticate` headers, in order (RFC 9110, 11.2 and 11.6.1). Reading stops
 * at the first place that is no challenge; what came before stands.
 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const text = typeof header === 'string' ? header : (header ?? []).join(', ');
  const reader = createReader(text.slice(0, MAX_HEADER_LENGTH));
  const challenges: Challenge[] = [];
  reader.take(SEPARATOR);
  while (challenges.length < MAX_CHALLENGES) {
    const scheme = reader.take(TOKEN);
    if (scheme === undefined) break;
    const parameters = new Map<string, string>();
    challenges.push({ scheme: scheme.toLowerCase(), parameters });
    if (reader.take(SPACE) !== undefined && reader.take(TOKEN68) === undefined) {
      if (!readParameters(reader, parameters)) break;
    }
    reader.take(SEPARATOR);
  }
  return challenges;
}

interface Reader {
  /** What `pattern` matches here (its group, if it has one), or undefined and nothing is consumed. */
  take(pattern: RegExp): string | undefined;
  mark(): number;
  reset(mark: number): void;
}

function createReader(text: string): Reader {
  let at = 0;
  return {
    take(pattern) {
      pattern.lastIndex = at;
      const match = pattern.exec(text);
      if (match === null) return undefined;
      at = pattern.lastIndex;
      return match[1] ?? match[0];
    },
    mark: () => at,
    reset: (mark) => {
      at = mark;
    },
  };
}

/** Reads `name=value` pairs up to a token without `=`, which starts the next challenge. False for nonsense. */
function readParameters(reader: Reader, into: Map<string, string>): boolean {
  for (;;) {
    const start = reader.mark();
    const name = reader.take(TOKEN);
    if (name === undefined) return true;
    if (reader.take(EQUALS) === undefined) {
      reader.reset(start);
      return true;
    }
    const quoted = reader.take(QUOTED);
    const value = quoted === undefined ? reader.take(TOKEN) : quoted.replaceAll(/\\(.)/gs, '$1');
    if (value === undefined) return false;
    // The first of two equal names counts: a later one must not redirect the token request.
    if (!into.has(name.toLowerCase())) into.set(name.toLowerCase(), value);
    reader.take(SEPARATOR);
  }
}
