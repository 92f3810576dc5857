import type { Dispatcher } from 'undici';
import { PullError } from '../format/error.js';
import type { Connection } from './connections.js';
import type { ResponseHeaders } from './headers.js';
import { timeoutError } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import { createExcerpt, createIdleTimer, type Excerpt, type IdleTimer } from './response-limits.js';

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

/** Receives a response. */
export interface ResponseHandler {
  /** Called before the body. Returns the part to keep; undefined: its beginning only. */
  head(status: number, headers: ResponseHeaders): BodyWindow | undefined;
  /** Called for every byte of a kept body, those that are skipped included. */
  received(bytes: number): void;
  readonly consume: BodyConsumer;
  /** Called with a function that ends the request at once, as `stopped` unless it has ended. */
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

/** Stands in for a rejection with undefined. */
const NO_REASON = new Error('consuming bytes failed without a reason');

/**
 * Sends one GET on a connection and feeds its body to `handler`.
 * @returns how it ended; network failures are an outcome
 * @throws what `handler.consume` throws or rejects with, after closing the connection
 */
export function transfer(
  connection: Connection,
  request: TransferRequest,
  handler: ResponseHandler,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const headers = { ...request.headers, ...connection.proxyHeaders };
    const path = connection.pathPrefix + request.path;
    const transfer = new Transfer(connection, request, handler, resolve, reject);
    connection.client.dispatch({ path, method: 'GET', headers }, transfer);
  });
}

/**
 * One request, as undici reports it. Runs once a chunk of up to 64 KiB: nothing is allocated there
 * and no promise is made.
 */
class Transfer implements Dispatcher.DispatchHandler {
  readonly #connection: Connection;
  readonly #idleTimeoutMs: number;
  readonly #handler: ResponseHandler;
  readonly #resolve: (outcome: Outcome) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #timer: IdleTimer;
  #controller: Dispatcher.DispatchController | undefined;
  #isReused = false;
  /** 0 before the response. */
  #status = 0;
  #isStopped = false;
  /** The body, if it is part of the blob, or its beginning, if it is not. */
  #cutter: ReturnType<typeof createCutter> | undefined;
  #excerpt: Excerpt | undefined;
  /** A promise of the consumer is open. */
  #isPaused = false;
  /** One read of the socket can hold several parts of a chunked body, which undici delivers at once. */
  readonly #waiting: Buffer[] = [];
  /** Why the consumer failed. */
  #failure: unknown;
  /** How the request ended, while a promise of the consumer is open. */
  #ended: { readonly error: unknown } | undefined;

  constructor(
    connection: Connection,
    request: TransferRequest,
    handler: ResponseHandler,
    resolve: (outcome: Outcome) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#connection = connection;
    this.#idleTimeoutMs = request.idleTimeoutMs;
    this.#handler = handler;
    this.#resolve = resolve;
    this.#reject = reject;
    const isPaused = () => this.#isPaused;
    this.#timer = createIdleTimer(request, isPaused, (phase) => this.#abort(timeoutError(phase)));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#isReused = this.#connection.responses > 0;
    this.#timer.start();
    this.#handler.started?.(() => {
      this.#isStopped = true;
      this.#abort(ENOUGH);
    });
  }

  onResponseStart(_: unknown, status: number, headers: ResponseHeaders): void {
    // An interim response is no progress: a server may send them for ever.
    if (status < 200) return;
    this.#timer.responseStarted();
    this.#connection.responses++;
    this.#status = status;
    const window = this.#handler.head(status, headers);
    if (window !== undefined) {
      this.#connection.isBody = true;
      this.#cutter = createCutter(window);
      return;
    }
    this.#timer.stop();
    // The status says what matters.
    this.#excerpt = createExcerpt(this.#idleTimeoutMs, () => this.#abort(ENOUGH));
    if (status < 300) this.#abort(ENOUGH);
  }

  onResponseData(_: unknown, chunk: Buffer): void {
    if (this.#excerpt !== undefined) {
      this.#excerpt.add(chunk);
      return;
    }
    this.#timer.progress();
    this.#handler.received(chunk.length);
    const part = this.#cutter?.cut(chunk);
    if (part !== undefined) {
      if (this.#isPaused) this.#waiting.push(part);
      else this.#deliver(part);
    }
    if (this.#cutter?.isEnough() === true) this.#abort(ENOUGH);
  }

  onResponseEnd(): void {
    this.#end(undefined);
  }

  onResponseError(_: unknown, error: unknown): void {
    this.#end(error);
  }

  #abort(error: Error): void {
    this.#controller?.abort(error);
  }

  #deliver(chunk: Buffer): void {
    let busy: void | Promise<void>;
    try {
      busy = this.#handler.consume(chunk);
    } catch (error) {
      this.#failure = error ?? NO_REASON;
      throw error;
    }
    if (busy === undefined) return;
    this.#isPaused = true;
    this.#connection.pause();
    busy.then(
      () => this.#resume(),
      (error: unknown) => this.#fail(error),
    );
  }

  #resume(): void {
    this.#isPaused = false;
    try {
      while (!this.#isPaused && this.#waiting.length > 0) this.#deliver(this.#waiting.shift()!);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (this.#isPaused) return;
    if (this.#ended === undefined) this.#connection.resume();
    else this.#settle(this.#ended.error);
  }

  #fail(error: unknown): void {
    this.#isPaused = false;
    this.#failure = error ?? NO_REASON;
    this.#waiting.length = 0;
    if (this.#ended !== undefined) this.#settle(this.#ended.error);
    else this.#abort(error instanceof Error ? error : new Error(String(error)));
  }

  #end(error: unknown): void {
    this.#timer.stop();
    this.#connection.isBody = false;
    if (this.#isPaused) this.#ended = { error };
    else this.#settle(error);
  }

  #settle(error: unknown): void {
    this.#connection.resume(error !== undefined);
    const excerpt = this.#excerpt?.end();
    if (this.#failure !== undefined) this.#reject(this.#failure);
    // The status counts even if the body behind it broke off.
    else if (excerpt !== undefined) this.#resolve({ kind: 'unwanted', body: excerpt });
    else if (this.#cutter?.isComplete() === true && !(error instanceof PullError))
      this.#resolve({ kind: 'complete' });
    else if (this.#isStopped) this.#resolve({ kind: 'stopped' });
    else {
      const unanswered = this.#isReused && this.#status === 0 && !this.#timer.expired();
      this.#resolve({ kind: 'broken', error, unanswered });
    }
  }
}

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
    /** As `isComplete`, for a body that continues behind the window. */
    isEnough: () => !isExact && left === 0,
  };
}
