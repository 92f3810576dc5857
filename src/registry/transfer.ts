import type { Dispatcher } from 'undici';
import { PullError } from '../format/error.js';
import { GatheredBytes } from '../format/gathered-bytes.js';
import { type BodyPlan, createBody, type TakeBytes } from './body.js';
import { createIdleTimer } from './idle-timer.js';
import type { Lane } from './lanes.js';
import { timeoutError } from './network-error.js';
import { MAX_SPARE_BODY_BYTES, spareBodyMs } from './small-answers.js';

export type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** The header's value; its first, if the server sent several. */
export function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0];
}

/** Where a body goes. */
export interface Sink {
  /** Judges a 200 or 206 before its body. What it throws ends the transfer. */
  plan(status: number, headers: Headers): BodyPlan;
  /** Hears of every body byte of a 200 or 206, wanted or not. */
  received(bytes: number): void;
  readonly take: TakeBytes;
}

/** How a request ended. */
export type Outcome =
  | { readonly kind: 'whole'; readonly status: number }
  /** The network failed; `status` is 0 if before any answer. `unanswered`: then, and on a reused connection. */
  | {
      readonly kind: 'broken';
      readonly status: number;
      readonly error: unknown;
      readonly unanswered: boolean;
    }
  /** An answer that is neither 200 nor 206, with the first 64 KiB of its body. */
  | { readonly kind: 'answer'; readonly status: number; readonly headers: Headers; readonly body: Buffer };

export interface TransferRequest {
  readonly path: string;
  readonly headers: Record<string, string>;
  /** Longest silence before and within the answer, holding not counted. */
  readonly idleTimeoutMs: number;
}

/** The reason given to undici when what was wanted has arrived and the body goes on. */
const ENOUGH = new Error('enough');

/**
 * Sends one GET on a lane and feeds its body to `sink`. Runs once a chunk of up to 64 KiB: nothing is allocated
 * there and no promise is made.
 * @returns how it ended; network failures are an outcome
 * @throws whatever `sink` throws or rejects with, after closing the connection
 */
export function transfer(lane: Lane, request: TransferRequest, sink: Sink): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const body = createBody(lane, sink.take, (error) => controller?.abort(toError(error)));
    let controller: Dispatcher.DispatchController | undefined;
    let status = 0;
    let headers: Headers = {};
    let reused = false;
    let words: GatheredBytes | undefined;
    let wordsTimer: NodeJS.Timeout | undefined;

    const timer = createIdleTimer(request.idleTimeoutMs, body.isHolding, () => {
      controller?.abort(timeoutError('idle'));
    });

    function end(error: unknown): void {
      timer.stop();
      clearTimeout(wordsTimer);
      body.settled((failure) => {
        lane.release();
        if (failure !== undefined) reject(failure);
        else if (error instanceof PullError) reject(error);
        // The status counts even if the body behind it broke off.
        else if (words !== undefined) resolve({ kind: 'answer', status, headers, body: words.bytes() });
        else if (body.isWhole()) resolve({ kind: 'whole', status });
        else
          resolve({ kind: 'broken', status, error, unanswered: reused && status === 0 && !timer.expired() });
      });
    }

    lane.client.dispatch(
      {
        path: lane.pathPrefix + request.path,
        method: 'GET',
        headers: { ...request.headers, ...lane.proxyHeaders },
      },
      {
        onRequestStart(started) {
          controller = started;
          reused = lane.answers > 0;
          timer.start();
        },
        onResponseStart(_controller, statusCode, answerHeaders) {
          // An interim answer is no progress: a server may send them for ever.
          if (statusCode < 200) return;
          timer.progress();
          lane.answers++;
          status = statusCode;
          headers = answerHeaders;
          if (status === 200 || status === 206) {
            body.begin(sink.plan(status, headers));
            return;
          }
          // The status says what matters: what else there is has this long to come, and the connection is closed then.
          timer.stop();
          words = new GatheredBytes();
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
