import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { cutRanges } from '../format/arrays.js';
import { type Digest, EMPTY_DIGEST } from '../format/digest.js';
import { fromFailure, PullError } from '../format/error.js';
import type { BlobPart } from '../plan/opaque.js';
import type { DecodeBlobResult } from '../pool/messages.js';
import type { Semaphore } from '../pool/semaphore.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { Fetcher, FetchJob, Work } from './fetcher.js';
import type { KnownLayer } from './layer.js';
import { LayerProver } from './prove-layer.js';
import type { PullContext } from './pull-context.js';

export interface OpaqueOptions {
  readonly context: PullContext;
  readonly fetcher: Fetcher;
  readonly layer: KnownLayer;
  /** Row of the layer in the pull. */
  readonly row: number;
  /**
   * Limits decoders at a time: each takes some tens of MB, and more than one a thread gain nothing.
   */
  readonly decoders: Semaphore;
  /** Lists the cached contents, which need not be written again. */
  readonly cached: () => Promise<CachedContentRows>;
}

/** The outcome for a blob that was received in full. */
interface Outcome {
  /** The tar as far as it was decoded. */
  readonly extents: ExtentList;
  readonly decoded: DecodeBlobResult;
  /** The digest of the extents; null when a pack does not have all of them any more. */
  readonly actual: Digest | null;
}

/** A part of the blob that is on disk or being fetched. */
interface BegunPart {
  readonly blobStart: number;
  blobEnd: number;
  /** Undefined until it is on disk. */
  location: { readonly pack: PackId; readonly packOffset: number } | undefined;
}

/** One attempt to fetch, hash and decode a blob from beginning to end. */
export class OpaqueAttempt {
  /** Raw packs, with the blob's bytes. */
  readonly blobPacks = new Set<PackId>();
  /** Packs with decoded bytes, except those that other layers wrote. */
  readonly ownPacks = new Set<PackId>();
  /** The first of the endpoints that sent bytes; undefined when nothing was fetched. */
  sender: number | undefined;
  readonly #options: OpaqueOptions;
  readonly #url: string;
  /** Parts that have not begun. */
  readonly #upcoming: Iterator<BlobPart, void>;
  readonly #work: Work;
  /** Parts that have begun, in order. */
  readonly #begun: BegunPart[] = [];
  /** All parts have begun. */
  #isPlanned = false;
  /** The first begun part that is not before the front. */
  #next = 0;
  /** What lies before the front and was not sent to the decoder. */
  #front = new ExtentList();
  #decoder: MessagePort | undefined;
  #decoding: Promise<unknown> | undefined;

  /** `parts` tile the blob, in order. */
  constructor(options: OpaqueOptions, url: string, parts: Iterator<BlobPart, void>) {
    this.#options = options;
    this.#url = url;
    this.#upcoming = parts;
    this.#work = { layer: options.row, dropped: false };
  }

  /** @throws PullError as fetching does */
  async run(): Promise<Outcome> {
    const { context, fetcher, decoders } = this.#options;
    try {
      return await new Promise((resolve, reject) => {
        // Parts on disk at the beginning of the blob reach the decoder before the fetcher gets to
        // this layer.
        const first = this.#beginNext();
        if (first !== undefined) fetcher.add(this.#jobs(first, reject));
        const decoding = decoders.with(1, () => {
          const decoded = this.#decode();
          this.#decoding = decoded;
          return decoded;
        });
        context.stop.guard(decoding).then(resolve, reject);
      });
    } catch (error) {
      this.#work.dropped = true;
      this.#decoder?.postMessage(null);
      throw error;
    }
  }

  /** Resolves when, after a failure, all fetching and decoding has ended. */
  async ended(): Promise<void> {
    await Promise.allSettled([this.#options.fetcher.ended(this.#work), this.#decoding]);
  }

  /**
   * Begins parts up to the first that has to be fetched, and returns that; undefined at the end of
   * the blob.
   */
  #beginNext(): BegunPart | undefined {
    let begun: BegunPart | undefined;
    do {
      const { done, value } = this.#upcoming.next();
      this.#isPlanned = done === true;
      begun = value ? { ...value, location: value.cached as BegunPart['location'] } : undefined;
      if (begun !== undefined) this.#begun.push(begun);
      if (begun?.location !== undefined) this.blobPacks.add(begun.location.pack);
    } while (begun?.location !== undefined);
    this.#advance();
    return begun;
  }

  /** The jobs for all that is missing, each made when it is to begin. */
  *#jobs(first: BegunPart, failed: (error: unknown) => void): Generator<FetchJob, void> {
    for (let part: BegunPart | undefined = first; part !== undefined && !this.#work.dropped; ) {
      yield this.#job(part, failed);
      part = this.#beginNext();
    }
  }

  #job(part: BegunPart, failed: (error: unknown) => void, splits = 0): FetchJob {
    const blob = { ...this.#options.layer.blob, url: this.#url };
    const { blobStart, blobEnd } = part;
    return {
      work: this.#work,
      sizeBytes: blobEnd - blobStart,
      splits,
      failed,
      run: async (pool, control, cost) => {
        const result = await pool.run({ task: 'fetch-opaque', control, blob, blobStart, blobEnd });
        cost(result);
        const pack = result.pack;
        this.blobPacks.add(pack);
        this.sender = Math.min(this.sender ?? result.sender, result.sender);
        if (result.failure !== undefined) throw fromFailure(result.failure);
        part.location = { pack, packOffset: result.packOffset };
        const { stoppedAt = blobEnd } = result;
        if (stoppedAt < blobEnd)
          for (const next of this.#cutOff(part, stoppedAt))
            this.#options.fetcher.addFirst(this.#job(next, failed, splits + 1));
        this.#advance();
      },
    };
  }

  /** Ends a part where it was stopped. Returns the parts behind it, which have to be fetched. */
  #cutOff(part: BegunPart, blobEnd: number): BegunPart[] {
    const bytes = this.#options.fetcher.partBytes(part.blobEnd - blobEnd);
    const remaining = cutRanges([{ start: blobEnd, end: part.blobEnd }], bytes);
    const parts = Array.from(remaining, ({ start, end }) => ({
      blobStart: start,
      blobEnd: end,
      location: undefined,
    }));
    part.blobEnd = blobEnd;
    this.#begun.splice(this.#begun.indexOf(part) + 1, 0, ...parts);
    return parts;
  }

  /** Moves the front over all parts on disk, and sends them to the decoder if it has started. */
  #advance(): void {
    for (; this.#next < this.#begun.length; this.#next++) {
      const { location, blobStart, blobEnd } = this.#begun[this.#next]!;
      if (location === undefined) break;
      this.#front.push(location.pack, location.packOffset, blobEnd - blobStart);
    }
    if (this.#decoder === undefined) return;
    if (this.#front.count > 0) this.#decoder.postMessage(this.#front.toRows());
    this.#front = new ExtentList();
    if (this.#isPlanned && this.#next === this.#begun.length) this.#decoder.postMessage(null);
  }

  async #decode(): Promise<Outcome> {
    const { context, layer } = this.#options;
    const { blob, diffId } = layer;
    // An empty tar, as some writers make for a layer without changes. Docker accepts it under any
    // media type.
    const isNothing = blob.digest === EMPTY_DIGEST && diffId === EMPTY_DIGEST;
    const compression = isNothing ? 'tar' : layer.compression;
    const cached = await this.#options.cached();
    if (this.#work.dropped) throw new PullError('internal', `${blob.digest} was dropped`);
    const prover = new LayerProver(context, layer);
    const extents = new ExtentList();
    const { port1, port2 } = new MessageChannel();
    const cachedPacks = new Set(cached.packs);
    const arriving = arrivals(port1, (part) => {
      for (const pack of part.packs) if (!cachedPacks.has(pack)) this.#own(pack);
      extents.append(part);
      prover.feed(part);
    });
    this.#decoder = port1;
    this.#advance();
    const allowance = context.decoded.forOpaque(layer);
    const task = { task: 'decode-blob', blob, compression, cached, ...allowance, port: port2 } as const;
    try {
      const decoded = await context.support.run(task, [port2]);
      context.decoded.noteOpaque(layer, decoded.tarBytes);
      if (decoded.pack !== null) this.#own(decoded.pack);
      for (const pack of this.ownPacks) context.packs.add(pack);
      // Messages that were posted before the result can arrive after it.
      await arriving;
      if (decoded.problem === undefined) return { extents, decoded, actual: await prover.end(extents) };
      prover.abandon();
      return { extents, decoded, actual: null };
    } finally {
      port1.close();
    }
  }

  /** Until the layer is verified, its pack has no use: the next pull resumes from the raw packs. */
  #own(pack: PackId): void {
    this.ownPacks.add(pack);
    this.#options.context.scrap.add(pack);
  }
}

/** Passes on extents from a port; resolves at the `null` behind the last of them. */
function arrivals(port: MessagePort, onExtents: (part: ExtentList) => void): Promise<void> {
  return new Promise((resolve) => {
    port.on('message', (rows: ExtentRows | null) => {
      if (rows === null) resolve();
      else onExtents(ExtentList.fromRows(rows));
    });
  });
}
