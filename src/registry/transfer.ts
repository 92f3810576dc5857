import type { Dispatcher } from 'undici';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import type { Connection } from './connections.js';
import type { ResponseHeaders } from './headers.js';
import { timeoutError } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import { createIdleTimer, MAX_SPARE_BODY_BYTES, spareBodyMs } from './response-limits.js';

/** Which part of a body is wanted. */
export interface BodyPlan {
  /** Leading bytes that are not (a 200 answer to a range starts at 0). */
  readonly skipBytes: number;
  readonly takeBytes: number;
  /** Whether the body must end there. If not, the connection is closed to stop it. */
  readonly exact: boolean;
}

/** Takes wanted bytes in order. While a promise is open it is not called again and the connection is held. */
type TakeBytes = (chunk: Buffer) => void | Promise<void>;

/** For whoever rejects with nothing: a failure has to be something. */
const NO_REASON = new Error('taking bytes failed without a reason');

/** A body under way: what of it is wanted, and who takes it. */
interface Body {
  begin(plan: BodyPlan): void;
  add(chunk: Buffer): void;
  /** Every wanted byte has arrived. */
  isWhole(): boolean;
  /** As `isWhole`, for a body that goes on. */
  isEnough(): boolean;
  isHolding(): boolean;
  /** Calls back when no promise is open any more, with what taking bytes failed with. */
  settled(callback: (failure: unknown) => void): void;
}

/** The wanted part of a body: cuts it out of the chunks as they come. */
interface Window {
  /** What of the next chunk is wanted. Throws `answer-unexpected` when an exact body goes on behind its end. */
  cut(chunk: Buffer): Buffer | undefined;
  isWhole(): boolean;
}

function createWindow({ skipBytes, takeBytes, exact }: BodyPlan): Window {
  let toSkip = skipBytes;
  let left = takeBytes;
  return {
    cut(chunk) {
      const start = Math.min(toSkip, chunk.length);
      toSkip -= start;
      const end = Math.min(chunk.length, start + left);
      if (exact && end < chunk.length) {
        throw unexpectedAnswer('the answer to a range is longer than the range');
      }
      left -= end - start;
      // Nearly every chunk is wanted whole: no new Buffer for those.
      if (end - start === chunk.length) return chunk;
      return start === end ? undefined : chunk.subarray(start, end);
    },
    isWhole: () => left === 0,
  };
}

/** Hands wanted bytes to `take`; holds the connection while that is busy. `abort` ends the request when it rejects. */
function createBody(connection: Connection, take: TakeBytes, abort: (error: unknown) => void): Body {
  let window: Window | undefined;
  let exact = true;
  let holding = false;
  let failure: unknown;
  let whenSettled: ((failure: unknown) => void) | undefined;
  // One chunk off the socket can hold several pieces of a chunked body, and comes whole.
  const waiting: Buffer[] = [];

  function hand(chunk: Buffer): void {
    let busy: void | Promise<void>;
    try {
      busy = take(chunk);
    } catch (error) {
      failure = error ?? NO_REASON;
      throw error;
    }
    if (busy === undefined) return;
    holding = true;
    connection.hold();
    busy.then(goOn, fail);
  }

  function goOn(): void {
    holding = false;
    try {
      while (!holding && waiting.length > 0) hand(waiting.shift()!);
    } catch (error) {
      fail(error);
      return;
    }
    if (holding) return;
    if (whenSettled === undefined) connection.release();
    else whenSettled(undefined);
  }

  function fail(error: unknown): void {
    holding = false;
    failure = error ?? NO_REASON;
    waiting.length = 0;
    if (whenSettled === undefined) abort(failure);
    else whenSettled(failure);
  }

  return {
    begin(plan) {
      exact = plan.exact;
      window = createWindow(plan);
    },
    add(chunk) {
      const wanted = window?.cut(chunk);
      if (wanted === undefined) return;
      if (holding) waiting.push(wanted);
      else hand(wanted);
    },
    isWhole: () => window?.isWhole() === true,
    isEnough: () => !exact && window?.isWhole() === true,
    isHolding: () => holding,
    settled(callback) {
      if (holding) whenSettled = callback;
      else callback(failure);
    },
  };
}

/** Where a body goes. */
export interface Sink {
  /** Hears of a response before its body. Returns what of that is wanted; undefined: only how it begins. */
  begin(status: number, headers: ResponseHeaders): BodyPlan | undefined;
  /** Hears of every byte of a wanted body, those that are skipped included. */
  received(bytes: number): void;
  readonly take: TakeBytes;
  /** Is told what ends the request at once, as `stopped` unless it has ended already. */
  started?(stop: () => void): void;
}

/** How a request ended. */
type Outcome =
  /** Every wanted byte has come. */
  | { readonly kind: 'whole' }
  /** The network failed, or the body is longer than it may be. `unanswered`: before any response, on a reused connection. */
  | { readonly kind: 'broken'; readonly error: unknown; readonly unanswered: boolean }
  /** It was stopped before every wanted byte had come. */
  | { readonly kind: 'stopped' }
  /** The body is not wanted: its first 64 KiB, none of a 2xx. */
  | { readonly kind: 'spare'; readonly body: Buffer };

export interface TransferRequest {
  readonly path: string;
  readonly headers: Record<string, string>;
  /** Longest silence within a body that has begun, holding not counted. */
  readonly idleTimeoutMs: number;
  /** Longest silence before the answer, and again before the first byte of its body. */
  readonly answerTimeoutMs: number;
}

/** The reason given to undici when what was wanted has arrived and the body goes on. */
const ENOUGH = new Error('enough');

/**
 * Sends one GET on a connection and feeds its body to `sink`. Runs once a chunk of up to 64 KiB: nothing is allocated
 * there and no promise is made.
 * @returns how it ended; network failures are an outcome
 * @throws what `sink.take` throws or rejects with, after closing the connection
 */
export function transfer(connection: Connection, request: TransferRequest, sink: Sink): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const body = createBody(connection, sink.take, (error) => controller?.abort(toError(error)));
    let controller: Dispatcher.DispatchController | undefined;
    let status = 0;
    let reused = false;
    let stopped = false;
    let words: GrowingBuffer | undefined;
    let wordsTimer: NodeJS.Timeout | undefined;

    const timer = createIdleTimer(request, body.isHolding, (phase) => {
      controller?.abort(timeoutError(phase));
    });

    function end(error: unknown): void {
      timer.stop();
      clearTimeout(wordsTimer);
      connection.isBody = false;
      body.settled((failure) => {
        connection.release(error !== undefined);
        if (failure !== undefined) reject(failure);
        // The status counts even if the body behind it broke off.
        else if (words !== undefined) resolve({ kind: 'spare', body: words.bytes() });
        else if (body.isWhole() && !(error instanceof PullError)) resolve({ kind: 'whole' });
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
          reused = connection.answers > 0;
          timer.start();
          sink.started?.(() => {
            stopped = true;
            started.abort(ENOUGH);
          });
        },
        onResponseStart(data, statusCode, answerHeaders) {
          // An interim answer is no progress: a server may send them for ever.
          if (statusCode < 200) return;
          timer.answered();
          connection.answers++;
          status = statusCode;
          const plan = sink.begin(status, answerHeaders);
          if (plan !== undefined) {
            connection.isBody = true;
            body.begin(plan);
            return;
          }
          timer.stop();
          words = new GrowingBuffer();
          if (status < 300) {
            data.abort(ENOUGH);
            return;
          }
          // The status says what matters: what else there is has this long to come, and the connection is closed then.
          wordsTimer = setTimeout(() => controller?.abort(ENOUGH), spareBodyMs(request.idleTimeoutMs));
        },
        onResponseData(data, chunk) {
          if (words !== undefined) {
            words.add(chunk.subarray(0, MAX_SPARE_BODY_BYTES - words.length));
            if (words.length === MAX_SPARE_BODY_BYTES) data.abort(ENOUGH);
            return;
          }
          timer.progress();
          sink.received(chunk.length);
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
