import { withoutSecretsInUse } from './secrets-in-use.js';

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
  readonly again?: string | undefined;
  /** Why what came is of no use, if it is not. */
  readonly givenUp?: string | undefined;
}

/** The path of a blob has at most some 350 characters; signed URLs, whose queries are left out, have no longer ones. */
const MAX_PATH_LENGTH = 512;

/**
 * A line about a request for who watches (`--debug`): what was asked, what came, how long it took. Queries are secret
 * (signatures) and stay out, as do all headers but Range.
 */
export function requestLine(request: LoggedRequest, nowMs: number): string {
  const { method, url, range, status, bytes, startedMs, again, givenUp } = request;
  const path = cut(withoutSecretsInUse(url.pathname));
  const what = `${method} ${url.host}${path}${range === undefined ? '' : ` ${range}`}`;
  const came = `${status === 0 ? 'no answer' : status}, ${bytes} bytes, ${Math.round(nowMs - startedMs)} ms`;
  if (again !== undefined) return `${what}: ${came}; again, as ${again}`;
  return `${what}: ${came}${givenUp === undefined ? '' : `; given up, as ${givenUp}`}`;
}

function cut(path: string): string {
  const cutLength = path.length - MAX_PATH_LENGTH;
  return cutLength <= 0 ? path : `${path.slice(0, MAX_PATH_LENGTH)}… (${cutLength} characters more)`;
}
