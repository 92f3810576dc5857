import type { Connection } from './connections.js';
import { unexpectedAnswer } from './refusal.js';

/** Which part of a body is wanted. */
export interface BodyPlan {
  /** Leading bytes that are not (a 200 answer to a range starts at 0). */
  readonly skipBytes: number;
  readonly takeBytes: number;
  /** Whether the body must end there. If not, the connection is closed to stop it. */
  readonly exact: boolean;
}

/** Takes wanted bytes in order. While a promise is open it is not called again and the connection is held. */
export type TakeBytes = (chunk: Buffer) => void | Promise<void>;

/** For whoever rejects with nothing: a failure has to be something. */
const NO_REASON = new Error('taking bytes failed without a reason');

/** A body under way: what of it is wanted, and who takes it. */
export interface Body {
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
export function createBody(connection: Connection, take: TakeBytes, abort: (error: unknown) => void): Body {
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
