import { crc32 } from 'node:zlib';
import { Concurrency, type Limits } from './backoff.js';
import { BLOB_SLOTS, blobSlot, TURN_WORDS } from './range-turns.js';

/** Avoid a failed endpoint this long, doubled by each failure: a connect timeout takes 5 s. */
const AVOID_MS = 10_000;

/** Ten minutes: no pull waits longer for a mirror to come back. */
const MAX_AVOID_MS = 600_000;

/** Each endpoint has a bit of a slot; for the 33rd mirror and those after it nothing is stored. */
const LACKING_BITS = 32;

/** Attempts at an opaque blob: the cached pieces, one at each endpoint with a bit, and one more. */
export const MAX_BLOB_TRIES = LACKING_BITS + 2;

/** The endpoint of bytes that come from none. Numbers below stand for hosts of foreign blobs. */
export const NO_ENDPOINT = -1;

/** Hosts are distinguished by a hash: two hosts with the same hash share their traits. */
const HOST_SLOTS = 31;

/** The number of a foreign blob's host, in place of an endpoint. */
export function foreignHost(blobUrl: string): number {
  return NO_ENDPOINT - 1 - (crc32(new URL(blobUrl).host) % HOST_SLOTS);
}

/**
 * How an endpoint, or a host of foreign blobs, responds to requests for blobs, as bits of a word.
 */
export type Trait = keyof typeof TRAITS;
const TRAITS = {
  /** The last range came from the registry itself: no need to wait for a redirect target. */
  'serves-itself': 1,
  /** It redirects each request to a URL that is valid for that request only. */
  'one-time-targets': 2,
  /** It answers a range with the full blob. */
  'ranges-ignored': 4,
  /** It refuses requests with a Range header. */
  'refuses-ranges': 8,
  /** It has answered a range with that range. */
  'gives-ranges': 16,
};

const TRAIT_SLOTS = LACKING_BITS + 1 + HOST_SLOTS;

/**
 * What all threads of a pull share: which endpoints lack which blobs, the traits of each endpoint
 * and each hash of a host, and the words of `RangeTurns`.
 */
export function createEndpointState(): Uint32Array<SharedArrayBuffer> {
  const words = BLOB_SLOTS + TRAIT_SLOTS + TURN_WORDS;
  return new Uint32Array(new SharedArrayBuffer(words * Uint32Array.BYTES_PER_ELEMENT));
}

/** The words of `RangeTurns` in what `createEndpointState` returned. */
export function turnWords({ buffer, byteOffset }: Uint32Array): Int32Array {
  const before = (BLOB_SLOTS + TRAIT_SLOTS) * Uint32Array.BYTES_PER_ELEMENT;
  return new Int32Array(buffer, byteOffset + before, TURN_WORDS);
}

/**
 * Chooses the endpoint from which a thread fetches a blob, by index: the first that neither failed
 * recently nor lacks the blob, and whose concurrency limit is not reached; one that asked to wait
 * comes last. The caller passes in the time, in milliseconds of the shared clock.
 */
export class EndpointChoice {
  /** By endpoint: failures in a row, and until when it is avoided. */
  readonly #failures: number[];
  readonly #avoidedUntil: number[];
  readonly #endpointState: Uint32Array;
  readonly #load: readonly Concurrency[];

  /** All threads share `endpointState`, and `limits` with a row for each endpoint. */
  constructor(count: number, endpointState: Uint32Array, limits: Limits) {
    this.#endpointState = endpointState;
    this.#load = Array.from({ length: count }, (_, i) => new Concurrency(limits, i));
    this.#failures = new Array<number>(count).fill(0);
    this.#avoidedUntil = new Array<number>(count).fill(0);
  }

  /**
   * The endpoint for this blob now, except those in `tried`; undefined when none is left. With
   * `isPart`, an endpoint that ignores ranges is skipped where another serves them.
   */
  next(digest: string, tried: ReadonlySet<number>, now: number, isPart = false): number | undefined {
    const servesParts = (i: number) => !isPart || !this.has(i, 'ranges-ignored');
    const all = [...this.#failures.keys()].filter(this.givesRanges(digest) ? servesParts : () => true);
    const withBlob = all.filter((i) => !this.#isLacking(i, digest));
    // An endpoint without the blob is no help against a failure or a wait of one that has it.
    const left = (withBlob.length > 0 ? withBlob : all).filter((i) => !tried.has(i));
    const notWaiting = left.filter((i) => this.#load[i]!.waitLeftMs(now) === 0);
    const healthy = notWaiting.filter((i) => this.#avoidedUntil[i]! <= now);
    return healthy.find((i) => !this.#load[i]!.isFull) ?? healthy[0] ?? notWaiting[0] ?? left[0];
  }

  /**
   * How long a range in flight at an endpoint is to back off before its next request, in
   * milliseconds: the remaining wait that the endpoint asked of any range, and 0 (a moment) while
   * too many are in flight. Undefined: not at all.
   */
  backOffMs(endpoint: number, now: number): number | undefined {
    if (endpoint < 0) return undefined;
    const load = this.#load[endpoint]!;
    const leftMs = load.waitLeftMs(now);
    return leftMs > 0 || load.isCrowded ? leftMs : undefined;
  }

  /** A range is in flight at an endpoint until it calls `leave`. */
  enter(endpoint: number): void {
    if (endpoint >= 0) this.#load[endpoint]!.enter();
  }

  leave(endpoint: number): void {
    if (endpoint >= 0) this.#load[endpoint]!.leave();
  }

  /** Whether an endpoint with a bit is left that is not known to lack the blob. */
  mayBeHad(digest: string): boolean {
    return this.#mayHave(digest).length > 0;
  }

  /** Whether an endpoint that may have the blob serves ranges. */
  givesRanges(digest: string): boolean {
    const gives = (i: number) => this.has(i, 'gives-ranges') && !this.has(i, 'ranges-ignored');
    return this.#mayHave(digest).some(gives);
  }

  /** Whether all endpoints that may have the blob asked to wait. */
  isToBeWaitedFor(digest: string, now: number): boolean {
    return this.#mayHave(digest).every((i) => this.#load[i]!.waitLeftMs(now) > 0);
  }

  #mayHave(digest: string): number[] {
    return [...this.#load.keys()].filter((i) => i < LACKING_BITS && !this.#isLacking(i, digest));
  }

  #isLacking(endpoint: number, digest: string): boolean {
    if (endpoint >= LACKING_BITS) return false;
    return (Atomics.load(this.#endpointState, blobSlot(digest)) & (1 << endpoint)) !== 0;
  }

  /** It failed, or asked to wait for `waitMs`: other blobs avoid it for a while, too. */
  failed(endpoint: number, now: number, waitMs?: number): void {
    if (endpoint < 0) return;
    if (waitMs !== undefined) this.#load[endpoint]!.throttled(waitMs, now);
    const failures = this.#failures[endpoint]!;
    let until = this.#avoidedUntil[endpoint]!;
    // Concurrent requests that fail are one failure.
    if (until <= now || failures === 0) {
      this.#failures[endpoint] = failures + 1;
      until = now + Math.min(MAX_AVOID_MS, AVOID_MS * 2 ** failures);
    }
    this.#avoidedUntil[endpoint] = Math.max(until, now + (waitMs ?? 0));
  }

  succeeded(endpoint: number): void {
    if (endpoint < 0) return;
    this.#failures[endpoint] = 0;
    this.#load[endpoint]!.good();
  }

  /**
   * Notes for all threads how the endpoint or host responds; nothing is noted of the 33rd mirror.
   */
  note(endpoint: number, trait: Trait, holds = true): void {
    if (endpoint >= LACKING_BITS || this.has(endpoint, trait) === holds) return;
    if (holds) Atomics.or(this.#endpointState, traitSlotOf(endpoint), TRAITS[trait]);
    else Atomics.and(this.#endpointState, traitSlotOf(endpoint), ~TRAITS[trait]);
  }

  has(endpoint: number, trait: Trait): boolean {
    if (endpoint >= LACKING_BITS) return false;
    return (Atomics.load(this.#endpointState, traitSlotOf(endpoint)) & TRAITS[trait]) !== 0;
  }

  /** It refused this blob or sent wrong bytes: no thread requests the blob there again. */
  lacks(endpoint: number, digest: string): void {
    if (endpoint >= 0 && endpoint < LACKING_BITS)
      Atomics.or(this.#endpointState, blobSlot(digest), 1 << endpoint);
  }
}

/** Endpoints come first, then `NO_ENDPOINT`, then hosts. */
function traitSlotOf(endpoint: number): number {
  return BLOB_SLOTS + (endpoint >= 0 ? endpoint : LACKING_BITS + NO_ENDPOINT - endpoint);
}
