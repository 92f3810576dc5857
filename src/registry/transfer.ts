import type { Dispatcher } from 'undici';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import type { Connection } from './connections.js';
import type { ResponseHeaders } from './headers.js';
import { timeoutError } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import { createIdleTimer, MAX_UNWANTED_BODY_BYTES, unwantedBodyMs } from './response-limits.js';

/** The part of a body to keep. */
export interface BodyWindow {
  /** Leading bytes to skip (a 200 response to a range starts at 0). */
  readonly skipBytes: number;
  readonly lengthBytes: number;
  /** Whether the body must end there. If not, the connection is closed to stop it. */
  readonly isExact: boolean;
}

/** Receives the window in order. The connection is paused while a promise is open. */
type BodyConsumer = (chunk: Buffer) => void | Promise<void>;

/** Stands in for a rejection with undefined. */
const NO_REASON = new Error('consuming bytes failed without a reason');

/** Cuts the window of a body out of its chunks. */
function createCutter({ skipBytes, lengthBytes, isExact }: BodyWindow) {
  let toSkip = skipBytes;
  let left = lengthBytes;
  return {
    /** Throws `answer-unexpected` when an exact body continues behind its end. */
    cut(chunk: Buffer): Buffer | undefined {
      const start = Math.min(toSkip, chunk.length);
      toSkip -= start;
      const end = Math.min(chunk.length, start + left);
      if (isExact && end < chunk.length) {
        throw unexpectedAnswer('the answer to a range is longer than the range');
      }
      left -= end - start;
      // Nearly every chunk lies in the window completely: no new Buffer for those.
      if (end - start === chunk.length) return chunk;
      return start === end ? undefined : chunk.subarray(start, end);
    },
    isComplete: () => left === 0,
  };
}

/** Hands the window of a body to `consume`; `abort` ends the request when that rejects. */
function createBody(connection: Connection, consume: BodyConsumer, abort: (error: unknown) => void) {
  let cutter: ReturnType<typeof createCutter> | undefined;
  let isExact = true;
  let paused = false;
  let failure: unknown;
  let whenSettled: ((failure: unknown) => void) | undefined;
  // One read of the socket can hold several parts of a chunked body, which undici delivers at once.
  const waiting: Buffer[] = [];

  function deliver(chunk: Buffer): void {
    let busy: void | Promise<void>;
    try {
      busy = consume(chunk);
    } catch (error) {
      failure = error ?? NO_REASON;
      throw error;
    }
    if (busy === undefined) return;
    paused = true;
    connection.pause();
    busy.then(resume, fail);
  }

  function resume(): void {
    paused = false;
    try {
      while (!paused && waiting.length > 0) deliver(waiting.shift()!);
    } catch (error) {
      fail(error);
      return;
    }
    if (paused) return;
    if (whenSettled === undefined) connection.resume();
    else whenSettled(undefined);
  }

  function fail(error: unknown): void {
    paused = false;
    failure = error ?? NO_REASON;
    waiting.length = 0;
    if (whenSettled === undefined) abort(failure);
    else whenSettled(failure);
  }

  return {
    begin(window: BodyWindow): void {
      isExact = window.isExact;
      cutter = createCutter(window);
    },
    add(chunk: Buffer): void {
      const part = cutter?.cut(chunk);
      if (part === undefined) return;
      if (paused) waiting.push(part);
      else deliver(part);
    },
    isComplete: () => cutter?.isComplete() === true,
    /** As `isComplete`, for a body that continues behind the window. */
    isEnough: () => !isExact && cutter?.isComplete() === true,
    isPaused: () => paused,
    /** Calls back when no promise is open any more, with the failure of the consumer if any. */
    settled(callback: (failure: unknown) => void): void {
      if (paused) whenSettled = callback;
      else callback(failure);
    },
  };
}

/** Receives a response. */
export interface ResponseHandler {
  /** Called before the body. Returns the part to keep; undefined: its beginning only. */
  head(status: number, headers: ResponseHeaders): BodyWindow | undefined;
  /** Called for every byte of a kept body, those that are skipped included. */
  received(bytes: number): void;
  readonly consume: BodyConsumer;
  /**
   * Called with a function that ends the request at once, as `stopped` unless it has ended already.
   */
  started?(stop: () => void): void;
}

/** How a request ended. */
export type Outcome =
  /** Every byte of the window has come. */
  | { readonly kind: 'complete' }
  /** The network failed, or the body is too long. `unanswered`: on a reused connection. */
  | { readonly kind: 'broken'; readonly error: unknown; readonly unanswered: boolean }
  /** It was stopped before every byte of the window had come. */
  | { readonly kind: 'stopped' }
  /** The body is not part of the blob: its first 64 KiB, none of a 2xx. */
  | { readonly kind: 'unwanted'; readonly body: Buffer };

export interface TransferRequest {
  readonly path: string;
  readonly headers: Record<string, string>;
  /** Longest silence within a body that has begun, paused not counted. */
  readonly idleTimeoutMs: number;
  /** Longest silence before the response, and again before the first byte of its body. */
  readonly answerTimeoutMs: number;
}

/** The reason given to undici when the window has arrived and the body continues. */
const ENOUGH = new Error('enough');

/**
 * Sends one GET on a connection and feeds its body to `handler`. Runs once a chunk of up to 64 KiB:
 * nothing is allocated there and no promise is made.
 * @returns how it ended; network failures are an outcome
 * @throws what `handler.consume` throws or rejects with, after closing the connection
 */
export function transfer(
  connection: Connection,
  request: TransferRequest,
  handler: ResponseHandler,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const body = createBody(connection, handler.consume, (error) => controller?.abort(toError(error)));
    let controller: Dispatcher.DispatchController | undefined;
    let status = 0;
    let reused = false;
    let stopped = false;
    let words: GrowingBuffer | undefined;
    let wordsTimer: NodeJS.Timeout | undefined;

    const timer = createIdleTimer(request, body.isPaused, (phase) => {
      controller?.abort(timeoutError(phase));
    });

    function end(error: unknown): void {
      timer.stop();
      clearTimeout(wordsTimer);
      connection.isBody = false;
      body.settled((failure) => {
        connection.resume(error !== undefined);
        if (failure !== undefined) reject(failure);
        // The status counts even if the body behind it broke off.
        else if (words !== undefined) resolve({ kind: 'unwanted', body: words.bytes() });
        else if (body.isComplete() && !(error instanceof PullError)) resolve({ kind: 'complete' });
        else if (stopped) resolve({ kind: 'stopped' });
        else resolve({ kind: 'broken', error, unanswered: reused && status === 0 && !timer.expired() });
      });
    }

    connection.client.dispatch(
      {
        path: connection.pathPrefix + request.path,
        method: 'GET',
        headers: { ...request.headers, ...connection.proxyHeaders },
      },
      {
        onRequestStart(started) {
          controller = started;
          reused = connection.responses > 0;
          timer.start();
          handler.started?.(() => {
            stopped = true;
            started.abort(ENOUGH);
          });
        },
        onResponseStart(data, statusCode, headers) {
          // An interim response is no progress: a server may send them for ever.
          if (statusCode < 200) return;
          timer.responseStarted();
          connection.responses++;
          status = statusCode;
          const window = handler.head(status, headers);
          if (window !== undefined) {
            connection.isBody = true;
            body.begin(window);
            return;
          }
          timer.stop();
          words = new GrowingBuffer();
          if (status < 300) {
            data.abort(ENOUGH);
            return;
          }
          // The status says what matters: the rest of the body has this long to come before the
          // connection is closed.
          wordsTimer = setTimeout(() => controller?.abort(ENOUGH), unwantedBodyMs(request.idleTimeoutMs));
        },
        onResponseData(data, chunk) {
          if (words !== undefined) {
            words.add(chunk.subarray(0, MAX_UNWANTED_BODY_BYTES - words.length));
            if (words.length === MAX_UNWANTED_BODY_BYTES) data.abort(ENOUGH);
            return;
          }
          timer.progress();
          handler.received(chunk.length);
          body.add(chunk);
          if (body.isEnough()) data.abort(ENOUGH);
        },
        onResponseEnd: () => end(undefined),
        onResponseError: (_controller, error) => end(error),
      },
    );
  });
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
