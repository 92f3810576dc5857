import { crc32 } from 'node:zlib';
import { Concurrency, type Limits } from './backoff.js';
import { TURN_WORDS } from './range-turns.js';

/** How long an endpoint that failed is left alone, doubled by each failure after the first: a connect timeout takes 5 s. */
const AVOID_MS = 10_000;

/** Ten minutes: no pull waits longer for a mirror to come back. */
const MOST_AVOID_MS = 600_000;

/** Blobs are told apart by the first three hex digits of their digests: one taken for another is fetched elsewhere as well. */
const LACKING_SLOTS = 16 ** 3;

/** An endpoint is a bit of a slot; that the 33rd mirror lacks something is not remembered. */
const LACKING_BITS = 32;

/** Attempts at a whole blob: what was kept, one at each endpoint that can be remembered to lack it, and one again. */
export const MAX_BLOB_TRIES = LACKING_BITS + 2;

/** Stands for the endpoint of what comes from none. What is below stands for a host that has foreign blobs. */
export const NO_ENDPOINT = -1;

/** Hosts are told apart by a hash: of two with the same, the second is asked as the first answers. */
const HOST_SLOTS = 31;

/** Stands for the host where a foreign blob lies, instead of an endpoint. */
export function foreignHost(blobUrl: string): number {
  return NO_ENDPOINT - 1 - (crc32(new URL(blobUrl).host) % HOST_SLOTS);
}

/** How an endpoint, or a host that has foreign blobs, answers for blobs, as bits of a word. */
export type Trait = keyof typeof TRAITS;
const TRAITS = {
  /** The last response to a range came from the registry itself: there is nothing to wait for before the next asks. */
  'serves-itself': 1,
  /** It redirects each request to a URL that is good for that one. */
  'one-time-targets': 2,
  /** It answers a range with the whole blob. */
  'ranges-ignored': 4,
  /** It does not answer a request that has a Range header. */
  'refuses-ranges': 8,
  /** It has answered a range with that range. */
  'gives-ranges': 16,
};

const TRAIT_SLOTS = LACKING_BITS + 1 + HOST_SLOTS;

/**
 * For all threads of a pull: which endpoints lack which blobs, a word of traits for each endpoint and each hash of a host, and
 * the words of `RangeTurns`.
 */
export function createEndpointState(): Uint32Array<SharedArrayBuffer> {
  const words = LACKING_SLOTS + TRAIT_SLOTS + TURN_WORDS;
  return new Uint32Array(new SharedArrayBuffer(words * Uint32Array.BYTES_PER_ELEMENT));
}

/** The words of `RangeTurns` in what `createEndpointState` returned. */
export function turnWords({ buffer, byteOffset }: Uint32Array): Int32Array {
  const before = (LACKING_SLOTS + TRAIT_SLOTS) * Uint32Array.BYTES_PER_ELEMENT;
  return new Int32Array(buffer, byteOffset + before, TURN_WORDS);
}

/**
 * Which endpoint of a blob one thread asks, by place in the list: the first that neither failed lately nor lacks the
 * blob, nor has as many requests in flight as it puts up with; one that asked to be left alone after all others. Time is
 * passed in, in milliseconds by the shared clock.
 */
export class EndpointChoice {
  /** By endpoint: failures in a row, and until when it is left alone. */
  readonly #failures: number[];
  readonly #avoidedUntil: number[];
  readonly #endpointState: Uint32Array;
  readonly #load: readonly Concurrency[];

  /** `endpointState` and `limits`, a row for each endpoint, are those of all threads. */
  constructor(count: number, endpointState: Uint32Array, limits: Limits) {
    this.#endpointState = endpointState;
    this.#load = Array.from({ length: count }, (_, i) => new Concurrency(limits, i));
    this.#failures = new Array<number>(count).fill(0);
    this.#avoidedUntil = new Array<number>(count).fill(0);
  }

  /**
   * The endpoint to ask for this blob now, but none of `tried`; undefined when none is left. `isPart`: one that gives whole
   * blobs only is not asked where another gives ranges.
   */
  next(digest: string, tried: ReadonlySet<number>, now: number, isPart = false): number | undefined {
    const isOfUse = (i: number) => !isPart || !this.has(i, 'ranges-ignored');
    const all = [...this.#failures.keys()].filter(this.givesRanges(digest) ? isOfUse : () => true);
    const having = all.filter((i) => !this.#isLacking(i, digest));
    // Whoever lacks the blob is no help against a failure or a wait of one that has it.
    const left = (having.length > 0 ? having : all).filter((i) => !tried.has(i));
    const calm = left.filter((i) => this.#load[i]!.waitLeftMs(now) === 0);
    const willing = calm.filter((i) => this.#avoidedUntil[i]! <= now);
    return willing.find((i) => !this.#load[i]!.isFull) ?? willing[0] ?? calm[0] ?? left[0];
  }

  /**
   * How long a range that is in flight at an endpoint is to step aside before it asks there, in milliseconds: as long as
   * any range was told to wait, and a moment (0) while too many are in flight. Undefined: not at all.
   */
  backOffMs(endpoint: number, now: number): number | undefined {
    if (endpoint < 0) return undefined;
    const load = this.#load[endpoint]!;
    const leftMs = load.waitLeftMs(now);
    return leftMs > 0 || load.isCrowded ? leftMs : undefined;
  }

  /** A range turns to an endpoint, and is in flight there until it calls `leave`. */
  enter(endpoint: number): void {
    if (endpoint >= 0) this.#load[endpoint]!.enter();
  }

  leave(endpoint: number): void {
    if (endpoint >= 0) this.#load[endpoint]!.leave();
  }

  /** Whether an endpoint is left that is not known to lack the blob, and of which that would be remembered. */
  mayBeHad(digest: string): boolean {
    return this.#mayHave(digest).length > 0;
  }

  /** Whether an endpoint that may have the blob gives ranges. */
  givesRanges(digest: string): boolean {
    const gives = (i: number) => this.has(i, 'gives-ranges') && !this.has(i, 'ranges-ignored');
    return this.#mayHave(digest).some(gives);
  }

  /** Whether all endpoints that may have the blob asked to be left alone: then there is nothing but to wait for them. */
  isToBeWaitedFor(digest: string, now: number): boolean {
    return this.#mayHave(digest).every((i) => this.#load[i]!.waitLeftMs(now) > 0);
  }

  #mayHave(digest: string): number[] {
    return [...this.#load.keys()].filter((i) => i < LACKING_BITS && !this.#isLacking(i, digest));
  }

  #isLacking(endpoint: number, digest: string): boolean {
    if (endpoint >= LACKING_BITS) return false;
    return (Atomics.load(this.#endpointState, slotOf(digest)) & (1 << endpoint)) !== 0;
  }

  /** The network or the server failed, or asked to be left alone for `askedMs`: other blobs go elsewhere for a while, too. */
  failed(endpoint: number, now: number, askedMs?: number): void {
    if (endpoint < 0) return;
    if (askedMs !== undefined) this.#load[endpoint]!.throttled(askedMs, now);
    const failures = this.#failures[endpoint]!;
    let until = this.#avoidedUntil[endpoint]!;
    // Requests that were under way at the same time are one failure.
    if (until <= now || failures === 0) {
      this.#failures[endpoint] = failures + 1;
      until = now + Math.min(MOST_AVOID_MS, AVOID_MS * 2 ** failures);
    }
    this.#avoidedUntil[endpoint] = Math.max(until, now + (askedMs ?? 0));
  }

  succeeded(endpoint: number): void {
    if (endpoint < 0) return;
    this.#failures[endpoint] = 0;
    this.#load[endpoint]!.good();
  }

  /** Notes, for all threads, how the endpoint or host answers; of the 33rd mirror nothing is noted. */
  note(endpoint: number, trait: Trait, holds = true): void {
    if (endpoint >= LACKING_BITS || this.has(endpoint, trait) === holds) return;
    if (holds) Atomics.or(this.#endpointState, traitSlotOf(endpoint), TRAITS[trait]);
    else Atomics.and(this.#endpointState, traitSlotOf(endpoint), ~TRAITS[trait]);
  }

  has(endpoint: number, trait: Trait): boolean {
    if (endpoint >= LACKING_BITS) return false;
    return (Atomics.load(this.#endpointState, traitSlotOf(endpoint)) & TRAITS[trait]) !== 0;
  }

  /** The endpoint refused this blob, answered wrongly, or sent bytes that are not the blob's: no thread asks it for that again. */
  lacks(endpoint: number, digest: string): void {
    if (endpoint >= 0 && endpoint < LACKING_BITS)
      Atomics.or(this.#endpointState, slotOf(digest), 1 << endpoint);
  }
}

function slotOf(digest: string): number {
  return Number.parseInt(digest.slice('sha256:'.length, 'sha256:'.length + 3), 16);
}

/** Endpoints, then what is none, then hosts. */
function traitSlotOf(endpoint: number): number {
  return LACKING_SLOTS + (endpoint >= 0 ? endpoint : LACKING_BITS + NO_ENDPOINT - endpoint);
}
