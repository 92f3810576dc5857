import type { Dispatcher } from 'undici';
import { PullError } from '../format/error.js';
import { GatheredBytes } from '../format/gathered-bytes.js';
import { type BodyPlan, createBody, type TakeBytes } from './body.js';
import type { Connection } from './connections.js';
import { createIdleTimer } from './idle-timer.js';
import { timeoutError } from './network-error.js';
import { MAX_SPARE_BODY_BYTES, spareBodyMs } from './small-answers.js';

export type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** The header's value; its first, if the server sent several. */
export function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0];
}

/** Where a body goes. */
export interface Sink {
  /** Hears of a response before its body. Returns what of that is wanted; undefined: only how it begins. */
  begin(status: number, headers: Headers): BodyPlan | undefined;
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
    let words: GatheredBytes | undefined;
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
          words = new GatheredBytes();
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
