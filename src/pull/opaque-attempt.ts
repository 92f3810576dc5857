import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { type Digest, EMPTY_DIGEST } from '../format/digest.js';
import { fromFailure, PullError } from '../format/error.js';
import { cutRanges } from '../format/ranges.js';
import type { BlobPart } from '../plan/opaque.js';
import type { CachedRows, DecodeBlobResult } from '../pool/messages.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { Semaphore } from './budgets.js';
import type { Fetcher, FetchJob, Work } from './fetcher.js';
import type { KnownLayer } from './layer.js';
import { LayerProver } from './prover.js';
import type { PullContext } from './pull-context.js';

export interface StreamOptions {
  readonly context: PullContext;
  readonly fetcher: Fetcher;
  readonly layer: KnownLayer;
  /** Row of the layer among those of the pull. */
  readonly index: number;
  /** Decoders at a time: each has some tens of MB in hand, and more than threads would only share them. */
  readonly turns: Semaphore;
  /** The contents that need not be written again. */
  readonly held: () => Promise<CachedRows>;
}

/** What became of a blob that was there as a whole. */
interface Outcome {
  /** Of the tar, as far as it could be decoded. */
  readonly extents: ExtentList;
  readonly decoded: DecodeBlobResult;
  /** What the extents hash to; null when a pack does not have all of them any more. */
  readonly actual: Digest | null;
}

/** A part of the blob that is on disk or being fetched, and where it is. */
interface BegunPart {
  readonly blobStart: number;
  blobEnd: number;
  place: { readonly pack: PackId; readonly offset: number } | undefined;
}

/** One blob fetched, hashed and decoded from beginning to end. */
export class OpaqueAttempt {
  /** Where its own bytes lie. */
  readonly blobPacks = new Set<PackId>();
  /** Where what they decode to lies, without what is shared. */
  readonly ownPacks = new Set<PackId>();
  /** The first of the endpoints that sent some of it; undefined when nothing was fetched. */
  sender: number | undefined;
  readonly #options: StreamOptions;
  readonly #url: string;
  /** The parts that were not begun yet. */
  readonly #upcoming: Iterator<BlobPart, void>;
  readonly #work: Work;
  /** The parts that were begun, in order. */
  readonly #begun: BegunPart[] = [];
  /** All parts were begun. */
  #isPlanned = false;
  /** The first of the begun parts that is not before the front. */
  #next = 0;
  /** What lies before the front and was not handed to the decoder yet. */
  #front = new ExtentList();
  #decoder: MessagePort | undefined;
  #decoding: Promise<unknown> | undefined;

  /** `parts`: those that tile the blob, in order. */
  constructor(options: StreamOptions, url: string, parts: Iterator<BlobPart, void>) {
    this.#options = options;
    this.#url = url;
    this.#upcoming = parts;
    this.#work = { layer: options.index, dropped: false };
  }

  /** @throws PullError as fetching does */
  async run(): Promise<Outcome> {
    const { context, fetcher, turns } = this.#options;
    try {
      return await new Promise((resolve, reject) => {
        // What is on disk at the beginning is there for the decoder before it is this layer's turn to fetch.
        const first = this.#beginNext();
        if (first !== undefined) fetcher.add(this.#jobs(first, reject));
        const decode = () => {
          const decoding = this.#decode();
          this.#decoding = decoding;
          return decoding;
        };
        context.stop.guard(turns.take(decode)).then(resolve, reject);
      });
    } catch (error) {
      this.#work.dropped = true;
      this.#decoder?.postMessage(null);
      throw error;
    }
  }

  /** After a failure: resolves when nothing is fetched or decoded any more. */
  async ended(): Promise<void> {
    await Promise.allSettled([this.#options.fetcher.ended(this.#work), this.#decoding]);
  }

  /** Begins the parts up to the first that is to be fetched, and returns that; undefined when nothing is left. */
  #beginNext(): BegunPart | undefined {
    try {
      for (;;) {
        const { done, value: part } = this.#upcoming.next();
        if (done === true) {
          this.#isPlanned = true;
          return undefined;
        }
        const { cached, blobStart, blobEnd } = part;
        const place = cached && { pack: cached.pack as PackId, offset: cached.packOffset };
        const begun = { blobStart, blobEnd, place };
        this.#begun.push(begun);
        if (place === undefined) return begun;
        this.blobPacks.add(place.pack);
      }
    } finally {
      this.#advance();
    }
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
      run: async (pool, turn, cost) => {
        const result = await pool.run({ task: 'fetch-opaque', ...turn, blob, blobStart, blobEnd });
        cost(result);
        const pack = result.pack as PackId;
        this.blobPacks.add(pack);
        this.sender = Math.min(this.sender ?? result.sender, result.sender);
        if (result.failure !== undefined) throw fromFailure(result.failure);
        part.place = { pack, offset: result.packOffset };
        const { stoppedAt = blobEnd } = result;
        if (stoppedAt < blobEnd)
          for (const rest of this.#cutOff(part, stoppedAt))
            this.#options.fetcher.addFirst(this.#job(rest, failed, splits + 1));
        this.#advance();
      },
    };
  }

  /** Ends a part where it was stopped. Returns the parts behind it, which are to be fetched. */
  #cutOff(part: BegunPart, blobEnd: number): BegunPart[] {
    const rest = { start: blobEnd, end: part.blobEnd };
    const bytes = this.#options.fetcher.partBytes(rest.end - rest.start);
    const parts = Array.from(cutRanges([rest], bytes), ({ start, end }) => ({
      blobStart: start,
      blobEnd: end,
      place: undefined,
    }));
    part.blobEnd = blobEnd;
    this.#begun.splice(this.#begun.indexOf(part) + 1, 0, ...parts);
    return parts;
  }

  /** Moves the front over all parts that are on disk, and hands them to the decoder if it is there. */
  #advance(): void {
    for (; this.#next < this.#begun.length; this.#next++) {
      const { place, blobStart, blobEnd } = this.#begun[this.#next]!;
      if (place === undefined) break;
      this.#front.push(place.pack, place.offset, blobEnd - blobStart);
    }
    if (this.#decoder === undefined) return;
    if (this.#front.count > 0) this.#decoder.postMessage(this.#front.toRows());
    this.#front = new ExtentList();
    if (this.#isPlanned && this.#next === this.#begun.length) this.#decoder.postMessage(null);
  }

  async #decode(): Promise<Outcome> {
    const { context, layer } = this.#options;
    const { blob, diffId } = layer;
    // A tar of no bytes, as some writers leave a layer that changes nothing. Docker takes it under any media type.
    const isNothing = blob.digest === EMPTY_DIGEST && diffId === EMPTY_DIGEST;
    const compression = isNothing ? 'tar' : layer.compression;
    const held = await this.#options.held();
    if (this.#work.dropped) throw new PullError('internal', `${blob.digest} is not decoded any more`);
    const prover = new LayerProver(context, layer);
    const extents = new ExtentList();
    const { port1, port2 } = new MessageChannel();
    const cachedPacks = new Set(held.packs);
    const arriving = arrivals(port1, (part) => {
      for (const pack of part.packs) if (!cachedPacks.has(pack)) this.#own(pack);
      extents.append(part);
      prover.feed(part);
    });
    this.#decoder = port1;
    this.#advance();
    const allowance = context.decoded.forStream(layer);
    const task = { task: 'decode-blob', blob, compression, held, ...allowance, port: port2 } as const;
    try {
      const decoded = await context.support.run(task, [port2]);
      context.decoded.noteStream(layer, decoded.tarBytes);
      if (decoded.pack !== null) this.#own(decoded.pack as PackId);
      for (const pack of this.ownPacks) context.packs.add(pack);
      // What was posted before a result can arrive after it.
      await arriving;
      if (decoded.problem === undefined) return { extents, decoded, actual: await prover.end(extents) };
      prover.abandon();
      return { extents, decoded, actual: null };
    } finally {
      port1.close();
    }
  }

  /** Of no use to the next pull, which goes on from the raw packs, until the layer is proven. */
  #own(pack: PackId): void {
    this.ownPacks.add(pack);
    this.#options.context.scrap.add(pack);
  }
}

/** Takes extents as they come through a port; resolves at the `null` behind the last of them. */
function arrivals(port: MessagePort, take: (part: ExtentList) => void): Promise<void> {
  return new Promise((resolve) => {
    port.on('message', (rows: ExtentRows | null) => {
      if (rows === null) resolve();
      else take(ExtentList.fromRows(rows));
    });
  });
}
