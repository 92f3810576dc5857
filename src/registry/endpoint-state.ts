import { crc32 } from 'node:zlib';
import { Concurrency, type Limits } from './backoff.js';

/** Blobs with the same first three hex digits of their digests share a turn and its endpoints. */
const BLOB_SLOTS = 16 ** 3;

function blobSlot(digest: string): number {
  return Number.parseInt(digest.slice('sha256:'.length, 'sha256:'.length + 3), 16);
}

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

/** Where the words of each part begin: lacking endpoints by blob, traits, turns, and claims by blob. */
const TRAITS_AT = BLOB_SLOTS;
const TURNS_AT = TRAITS_AT + LACKING_BITS + 1 + HOST_SLOTS;
const CLAIMS_AT = TURNS_AT + BLOB_SLOTS;

/**
 * What all threads of a pull share: which endpoints lack which blobs, the traits of each endpoint
 * and each hash of a host, and the turns and claims of `RangeTurns`.
 */
export function createEndpointState(): Uint32Array<SharedArrayBuffer> {
  const words = CLAIMS_AT + BLOB_SLOTS;
  return new Uint32Array(new SharedArrayBuffer(words * Uint32Array.BYTES_PER_ELEMENT));
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
  mayServe(digest: string): boolean {
    return this.#candidates(digest).length > 0;
  }

  /** Whether an endpoint that may have the blob serves ranges. */
  givesRanges(digest: string): boolean {
    const gives = (i: number) => this.has(i, 'gives-ranges') && !this.has(i, 'ranges-ignored');
    return this.#candidates(digest).some(gives);
  }

  /** Whether all endpoints that may have the blob asked to wait. */
  mustWait(digest: string, now: number): boolean {
    return this.#candidates(digest).every((i) => this.#load[i]!.waitLeftMs(now) > 0);
  }

  #candidates(digest: string): number[] {
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
  return TRAITS_AT + (endpoint >= 0 ? endpoint : LACKING_BITS + NO_ENDPOINT - endpoint);
}

/** The state of a blob's turn: free, held by a range, or abandoned for this blob. */
const FREE = 0;
const HELD = 1;
const ABANDONED = 2;

/** How long a range waits for its turn, in milliseconds. */
export interface TurnLimits {
  /** Until one response begins. */
  readonly responseMs: number;
  /** For all ranges before it. */
  readonly totalMs: number;
}

/**
 * A nearby registry answers sixteen requests one after the other within `totalMs`. One whose round
 * trip is longer than `responseMs` delays the ranges of a blob by that, once: its server has sent
 * no more than some ten KB of a body that is closed at its head.
 */
const NEAR: TurnLimits = { responseMs: 30, totalMs: 100 };

/**
 * Serializes the first requests for ranges of a blob, on all threads: the next is sent when the
 * response to the one before has begun. So a server that ignores ranges starts to send one full
 * blob, and not one a connection. When a response does not begin in time, ranges of that blob wait
 * for each other no more.
 */
export class RangeTurns {
  readonly #words: Int32Array;
  readonly #limits: TurnLimits;

  constructor({ buffer, byteOffset, length }: Uint32Array, limits = NEAR) {
    // Atomics.waitAsync works on signed words only.
    this.#words = new Int32Array(buffer, byteOffset, length);
    this.#limits = limits;
  }

  /** Resolves when a range of the blob may be requested, with a function that ends its turn. */
  async acquire(digest: string): Promise<() => void> {
    const slot = TURNS_AT + blobSlot(digest);
    const { responseMs, totalMs } = this.#limits;
    const untilMs = performance.now() + totalMs;
    for (;;) {
      const before = Atomics.compareExchange(this.#words, slot, FREE, HELD);
      if (before === ABANDONED) return () => {};
      if (before === FREE) return () => this.#end(slot, FREE);
      const waitMs = Math.max(0, Math.min(responseMs, untilMs - performance.now()));
      const { value } = Atomics.waitAsync(this.#words, slot, HELD, waitMs);
      if ((await value) === 'timed-out') this.#end(slot, ABANDONED);
    }
  }

  #end(slot: number, state: number): void {
    if (Atomics.compareExchange(this.#words, slot, HELD, state) === HELD) Atomics.notify(this.#words, slot);
  }

  /** Whether the caller is the first to receive this blob in full, and keeps the response. */
  claimFullBlob(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.or(this.#words, slot, bit) & bit) === 0;
  }

  /** Whether a range of this blob has become the full blob: the others are of no use. */
  isFullBlobComing(digest: string): boolean {
    const [slot, bit] = claimOf(digest);
    return (Atomics.load(this.#words, slot) & bit) !== 0;
  }
}

/** A claim ends other ranges for good: the last digits distinguish blobs that share a slot. */
function claimOf(digest: string): readonly [slot: number, bit: number] {
  return [CLAIMS_AT + blobSlot(digest), 1 << (Number.parseInt(digest.slice(-2), 16) & 31)];
}
