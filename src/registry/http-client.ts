import type { Agent, ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { codingsOf, isCoded, MAX_CODING_BYTES } from './headers.js';
import { proxyError, timeoutError } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import {
  createExcerpt,
  createIdleTimer,
  type IdleTimer,
  MAX_HEADER_BYTES,
  smallResponseMs,
} from './response-limits.js';
import { createAgent, findRoute, type Route } from './route.js';
import type { Transport } from './transport.js';

export interface HttpClientOptions {
  readonly transport: Transport;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  readonly userAgent: string;
}

/** By name in lower case; several values are sent as a line each. */
export type RequestHeaders = Readonly<Record<string, string | string[]>>;

/** One request, a GET unless it says otherwise. */
interface HttpRequest {
  readonly url: URL;
  readonly method?: 'HEAD' | 'POST' | undefined;
  /** The body of a POST. */
  readonly body?: string | undefined;
  readonly headers: RequestHeaders;
  /** Above this a 2xx body is not read; `HttpResponse.tooLong` is set. */
  readonly maxBytes: number;
  /** Called for every body byte of a 2xx response. */
  received(bytes: number): void;
}

/** A response with its complete body. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The first 64 KiB of a response that is not 2xx. */
  readonly body: Buffer;
  readonly tooLong: boolean;
}

export interface HttpClient {
  /** The response, whatever its status. Rejects with the error of the network, untranslated. */
  send(request: HttpRequest): Promise<HttpResponse>;
  close(): void;
}

/**
 * The main thread's client for its few small requests: node:http, because importing undici and one
 * GET costs about 170 ms, more than everything else before the first byte. Connections are kept
 * alive; a request that dies on a reused one before any response is sent again on a new one.
 */
export function createHttpClient(options: HttpClientOptions): HttpClient {
  const agents = new Map<string, Promise<Agent>>();

  /** The agent for such requests; with `isFresh`, one with a new connection. */
  function agentFor(route: Route, isFresh: boolean): Promise<Agent> {
    const key = `${route.secure} ${route.tunnel?.origin}`;
    const existing = agents.get(key);
    if (existing !== undefined && !isFresh) return existing;
    const agent = createAgent(route, !isFresh, options.connectTimeoutMs);
    if (!isFresh) agents.set(key, agent);
    return agent;
  }

  async function sendOnce(request: HttpRequest, isFresh = false): Promise<HttpResponse> {
    const route = await findRoute(request.url, options.transport);
    const http = route.secure ? await import('node:https') : await import('node:http');
    const agent = await agentFor(route, isFresh);
    const message = http.request({
      ...route.target,
      agent,
      maxHeaderSize: MAX_HEADER_BYTES,
      method: request.method ?? 'GET',
      headers: {
        'accept-encoding': 'identity',
        'user-agent': options.userAgent,
        ...request.headers,
        ...route.headers,
      },
      ...route.tls,
    });
    const response = receive(message, request, options, route.forwardProxy);
    message.end(request.body);
    return response;
  }

  return {
    async send(request) {
      try {
        return await sendOnce(request);
      } catch (error) {
        if (diedOnReusedSocket(error)) return await sendOnce(request, true);
        throw error;
      }
    },
    close() {
      for (const agent of agents.values()) void agent.then((made) => made.destroy());
      agents.clear();
    },
  };
}

/** The response to a request that is about to be sent, by `proxy` if there is one. */
function receive(
  message: ClientRequest,
  request: HttpRequest,
  options: HttpClientOptions,
  proxy: string | undefined,
): Promise<HttpResponse> {
  const { idleTimeoutMs } = options;
  return new Promise((resolve, reject) => {
    const isPaused = () => false;
    const timer = createIdleTimer(options, isPaused, (phase) => message.destroy(timeoutError(phase)));
    // A socket comes when the connection stands, which has a timeout of its own.
    message.once('socket', timer.start);
    let responded = false;
    message.on('response', (response) => {
      responded = true;
      timer.responseStarted();
      const { statusCode = 0 } = response;
      if (statusCode >= 200 && statusCode < 300) {
        collect(response, request, timer, idleTimeoutMs).then(resolve, reject);
      } else {
        timer.stop();
        collectUnwanted(response, idleTimeoutMs).then(resolve, reject);
      }
    });
    const fail = (error: Error) => {
      timer.stop();
      if (proxy !== undefined) proxyError(error, proxy);
      reject(Object.assign(error, { onReusedSocket: message.reusedSocket && !timer.expired() }));
    };
    message.on('error', fail);
    // A response that switches protocols (101) comes as neither a response nor an error.
    message.on('close', () => {
      if (!responded) fail(Object.assign(new Error('closed'), { code: 'ECONNRESET' }));
    });
  });
}

function diedOnReusedSocket(error: unknown): boolean {
  return error instanceof Error && 'onReusedSocket' in error && error.onReusedSocket === true;
}

/** A 2xx response with its body, up to `maxBytes`; a body that takes too long is an error. */
function collect(
  response: IncomingMessage,
  request: HttpRequest,
  timer: IdleTimer,
  idleTimeoutMs: number,
): Promise<HttpResponse> {
  const body = new GrowingBuffer();
  const coded = isCoded(response.headers['content-encoding']);
  const maxBytes = request.maxBytes + (coded ? MAX_CODING_BYTES : 0);
  let startedMs: number | undefined;
  return new Promise((resolve, reject) => {
    const finish = (tooLong: boolean) => {
      timer.stop();
      resolve(responseOf(response, body.bytes(), tooLong));
    };
    response.on('data', (chunk: Buffer) => {
      timer.progress();
      startedMs ??= performance.now();
      request.received(chunk.length);
      if (body.length + chunk.length > maxBytes) {
        finish(true);
        response.destroy();
        return;
      }
      body.add(chunk);
      const tookMs = performance.now() - startedMs;
      if (tookMs > smallResponseMs(idleTimeoutMs, body.length)) response.destroy(timeoutError('small'));
    });
    response.on('end', () => finish(false));
    // A timeout has reached the request's own listener before this.
    response.on('error', (error) => {
      timer.stop();
      reject(error);
    });
  });
}

/** Any other response, with the beginning of its body if that comes soon. */
function collectUnwanted(response: IncomingMessage, idleTimeoutMs: number): Promise<HttpResponse> {
  return new Promise((resolve) => {
    const finish = () => resolve(responseOf(response, excerpt.end()));
    const excerpt = createExcerpt(idleTimeoutMs, () => {
      finish();
      response.destroy();
    });
    response.on('data', excerpt.add).on('end', finish).on('error', finish);
  });
}

function responseOf(response: IncomingMessage, body: Buffer, tooLong = false): HttpResponse {
  return { status: response.statusCode ?? 0, headers: response.headers, body, tooLong };
}

/**
 * Decodes a response with a Content-Encoding, although none was requested; a body that is not in
 * that coding is returned unchanged.
 * @throws PullError `answer-unexpected` for a coding that is not gzip, and for one that is damaged
 */
export async function decodeResponse(
  response: HttpResponse,
  host: string,
  maxBytes: number,
): Promise<HttpResponse> {
  const { body, headers, tooLong, status } = response;
  const encoding = headers['content-encoding'];
  if (status >= 300 || tooLong || !isCoded(encoding)) return response;
  const [coding = '', ...others] = codingsOf(encoding);
  const isGzip = others.length === 0 && /^(x-)?gzip$/.test(coding);
  const looksCoded = body[0] === 0x1f && body[1] === 0x8b;
  if (!isGzip && !/^\s*[[{]/.test(body.toString('latin1', 0, 16))) {
    throw unexpectedAnswer(`${host} encodes its response, although no encoding was requested`);
  }
  if (!isGzip || !looksCoded) return { ...response, tooLong: body.length > maxBytes };
  const { gunzipSync } = await import('node:zlib');
  try {
    return { ...response, body: gunzipSync(body, { maxOutputLength: Math.max(1, maxBytes) }) };
  } catch (error) {
    if (error instanceof RangeError) return { ...response, tooLong: true };
    const problem = `${host} encodes its response, and the encoded bytes are damaged`;
    throw new PullError('answer-unexpected', problem, { cause: error });
  }
}
