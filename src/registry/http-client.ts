import type { Agent, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { codingsOf, isCoded, MAX_CODING_BYTES } from './headers.js';
import { proxyError, timeoutError } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import {
  createIdleTimer,
  type IdleTimer,
  MAX_HEADER_BYTES,
  MAX_SPARE_BODY_BYTES,
  smallAnswerMs,
  spareBodyMs,
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

/** By name in lower case; several values are a line each. */
export type RequestHeaders = Readonly<Record<string, string | string[]>>;

/** One request, a GET unless it says otherwise; the answer's body is wanted whole. */
interface Get {
  readonly url: URL;
  readonly method?: 'HEAD' | 'POST' | undefined;
  /** What a POST brings along. */
  readonly body?: string | undefined;
  readonly headers: RequestHeaders;
  /** Above this a 2xx body is not read; `Answer.tooLong` tells. */
  readonly maxBytes: number;
  /** Hears of every body byte of a 2xx answer. */
  received(bytes: number): void;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The body; of an answer that is not 2xx its first 64 KiB. */
  readonly body: Buffer;
  readonly tooLong: boolean;
}

export interface HttpClient {
  /** The answer, whatever its status. Rejects with the error of the network, untranslated. */
  get(get: Get): Promise<Answer>;
  close(): void;
}

/**
 * The main thread's client for its few small requests: node:http, because importing undici and one GET costs about
 * 170 ms, more than everything else before the first byte. Connections are kept alive; a request that dies on a
 * reused one before any answer is repeated on a new one.
 */
export function createHttpClient(options: HttpClientOptions): HttpClient {
  const agents = new Map<string, Promise<Agent>>();

  /** The agent that keeps connections for such requests; a fresh one keeps none and has none. */
  function agentFor(route: Route, fresh: boolean): Promise<Agent> {
    const key = `${route.secure} ${route.tunnel?.origin}`;
    const kept = agents.get(key);
    if (kept !== undefined && !fresh) return kept;
    const agent = createAgent(route, !fresh, options.connectTimeoutMs);
    if (!fresh) agents.set(key, agent);
    return agent;
  }

  async function send(get: Get, fresh = false): Promise<Answer> {
    const route = await findRoute(get.url, options.transport);
    const http = route.secure ? await import('node:https') : await import('node:http');
    const agent = await agentFor(route, fresh);
    return new Promise((resolve, reject) => {
      const request = http.request({
        ...route.target,
        agent,
        maxHeaderSize: MAX_HEADER_BYTES,
        method: get.method ?? 'GET',
        headers: {
          'accept-encoding': 'identity',
          'user-agent': options.userAgent,
          ...get.headers,
          ...route.headers,
        },
        ...route.tls,
      });
      const timer = createIdleTimer(
        options,
        () => false,
        (phase) => request.destroy(timeoutError(phase)),
      );
      // It has one when the connection stands, for which there is a time as well.
      request.once('socket', timer.start);
      let responded = false;
      request.on('response', (response) => {
        responded = true;
        timer.answered();
        const { statusCode = 0 } = response;
        const isGood = statusCode >= 200 && statusCode < 300;
        const answer = isGood
          ? collect(response, get, timer, options.idleTimeoutMs)
          : collectSpare(response, timer, options.idleTimeoutMs);
        answer.then(resolve, reject);
      });
      const fail = (error: Error) => {
        timer.stop();
        if (route.askedProxy !== undefined) proxyError(error, route.askedProxy);
        reject(Object.assign(error, { onReusedSocket: request.reusedSocket && !timer.expired() }));
      };
      request.on('error', fail);
      // All that comes of an answer that switches protocols (101): no response, and no error.
      request.on('close', () => {
        if (!responded) fail(brokenOff());
      });
      request.end(get.body);
    });
  }

  return {
    async get(get) {
      try {
        return await send(get);
      } catch (error) {
        if (diedOnReusedSocket(error)) return await send(get, true);
        throw error;
      }
    },
    close() {
      for (const agent of agents.values()) void agent.then((made) => made.destroy());
      agents.clear();
    },
  };
}

function brokenOff(): Error {
  return Object.assign(new Error('closed'), { code: 'ECONNRESET' });
}

function diedOnReusedSocket(error: unknown): boolean {
  return error instanceof Error && 'onReusedSocket' in error && error.onReusedSocket === true;
}

/** A 2xx answer with its body, cut where the request says. One that takes too long as a whole fails as one that falls silent. */
function collect(
  response: IncomingMessage,
  get: Get,
  timer: IdleTimer,
  idleTimeoutMs: number,
): Promise<Answer> {
  const body = new GrowingBuffer();
  const coded = isCoded(response.headers['content-encoding']);
  const maxBytes = get.maxBytes + (coded ? MAX_CODING_BYTES : 0);
  let startedMs: number | undefined;
  return new Promise((resolve, reject) => {
    const finish = (tooLong: boolean) => {
      timer.stop();
      resolve(answerOf(response, body, tooLong));
    };
    response.on('data', (chunk: Buffer) => {
      timer.progress();
      startedMs ??= performance.now();
      get.received(chunk.length);
      if (body.length + chunk.length > maxBytes) {
        finish(true);
        response.destroy();
        return;
      }
      body.add(chunk);
      const tookMs = performance.now() - startedMs;
      if (tookMs > smallAnswerMs(idleTimeoutMs, body.length)) response.destroy(timeoutError('whole'));
    });
    response.on('end', () => finish(false));
    // A timeout has reached the request's own listener before this.
    response.on('error', (error) => {
      timer.stop();
      reject(error);
    });
  });
}

/** Any other answer with the beginning of its body, which says no more than the status does: it is not waited for. */
function collectSpare(response: IncomingMessage, timer: IdleTimer, idleTimeoutMs: number): Promise<Answer> {
  timer.stop();
  const body = new GrowingBuffer();
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(limit);
      resolve(answerOf(response, body, false));
    };
    const cut = () => {
      finish();
      response.destroy();
    };
    const limit = setTimeout(cut, spareBodyMs(idleTimeoutMs));
    response.on('data', (chunk: Buffer) => {
      body.add(chunk.subarray(0, MAX_SPARE_BODY_BYTES - body.length));
      if (body.length === MAX_SPARE_BODY_BYTES) cut();
    });
    response.on('end', finish);
    response.on('error', finish);
  });
}

function answerOf(response: IncomingMessage, body: GrowingBuffer, tooLong: boolean): Answer {
  return { status: response.statusCode ?? 0, headers: response.headers, body: body.bytes(), tooLong };
}

/**
 * A small answer without the coding that its header names, although nobody asked for one; one whose bytes are not in that coding
 * comes back as it is.
 * @throws PullError `answer-unexpected` for a coding that is not gzip, and for one that is damaged
 */
export async function decodeAnswer(answer: Answer, host: string, maxBytes: number): Promise<Answer> {
  const { body, headers, tooLong, status } = answer;
  const encoding = headers['content-encoding'];
  if (status >= 300 || tooLong || !isCoded(encoding)) return answer;
  const [coding = '', ...others] = codingsOf(encoding);
  const isGzip = others.length === 0 && /^(x-)?gzip$/.test(coding);
  const looksCoded = body[0] === 0x1f && body[1] === 0x8b;
  if (!isGzip && !/^\s*[[{]/.test(body.toString('latin1', 0, 16))) {
    throw unexpectedAnswer(`${host} encodes its answer, which nobody asked for`);
  }
  if (!isGzip || !looksCoded) return { ...answer, tooLong: body.length > maxBytes };
  const { gunzipSync } = await import('node:zlib');
  try {
    return { ...answer, body: gunzipSync(body, { maxOutputLength: Math.max(1, maxBytes) }) };
  } catch (error) {
    if (error instanceof RangeError) return { ...answer, tooLong: true };
    throw new PullError('answer-unexpected', `${host} encodes its answer, and what it sent is damaged`, {
      cause: error,
    });
  }
}
