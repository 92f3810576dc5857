/** One request that is over. */
export interface ToldRequest {
  readonly method: string;
  readonly url: URL;
  /** The Range header. */
  readonly range?: string;
  /** 0 when there was no answer. */
  readonly status: number;
  readonly bytes: number;
  readonly startedMs: number;
  /** Why the network failed, if it did: then the request is repeated. A status says by itself why it is. */
  readonly failure?: string;
}

/**
 * A line about a request for who watches (`--debug`): what was asked, what came, how long it took. Queries are secret
 * (signatures) and stay out, as do all headers but Range.
 */
export function requestLine(request: ToldRequest, nowMs: number): string {
  const { method, url, range, status, bytes, startedMs, failure } = request;
  const what = `${method} ${url.host}${url.pathname}${range === undefined ? '' : ` ${range}`}`;
  const came = `${status === 0 ? 'no answer' : status}, ${bytes} bytes, ${Math.round(nowMs - startedMs)} ms`;
  return `${what}: ${came}${failure === undefined ? '' : `; again, as ${failure}`}`;
}
