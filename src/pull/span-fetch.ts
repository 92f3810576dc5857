import { cutRanges } from '../format/arrays.js';
import { fromFailure, PullError } from '../format/error.js';
import { findCutPoint } from '../format/layer-table.js';
import type { FetchSpanResult, FetchSpanTask, LayerMetadata, PackRun, WrongBytes } from '../pool/messages.js';
import type { PackId } from '../store/paths.js';
import type { Fetcher, FetchJob, Work } from './fetcher.js';
import type { ChunkedLayer } from './layer.js';
import type { PullContext } from './pull-context.js';

/** A range to fetch for a span of the plan: all of it, or the remainder after wrong bytes. */
export interface SpanRange {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /**
   * Verify each content, as the DiffID is wrong; `again` if this pull received wrong contents there
   * before.
   */
  readonly checkContents?: 'first' | 'again';
  /**
   * Called for each part on disk, in tar order, unless it is known to be wrong; `last` at the end
   * of the range.
   */
  readonly onPart: (part: PackRun, last: boolean) => void;
  /** How many stops of slow ranges led to this range. */
  readonly splits?: number;
  /** Called on failure, instead of the callback of the SpanFetch. */
  readonly failed?: (error: unknown) => void;
}

/**
 * Offsets of one span that may arrive wrong once each; beyond that, something on the way is broken.
 */
const MAX_RETRIES = 8;

/**
 * Compressed bytes of a piece before it is decoded. A killed process loses what its connections
 * have received and not decoded, about one and a half pieces each; all together stay below this
 * share of the fetch. 256 KiB and what they decode to fit in a core's cache: 512 KiB took 7 % more
 * CPU time and 20 MB more memory.
 */
const LOST_SHARE = 0.03;
const LOST_PIECES = 1.5;
const MIN_PIECE_BYTES = 32 * 1024;
const MAX_PIECE_BYTES = 256 * 1024;

/** The size of a piece for a pull that fetches so many bytes. */
export function pieceBytes(fetchBytes: number, connections: number): number {
  const share = (fetchBytes * LOST_SHARE) / (connections * LOST_PIECES);
  return Math.round(Math.min(MAX_PIECE_BYTES, Math.max(MIN_PIECE_BYTES, share)));
}

interface SpanFetchOptions {
  readonly context: PullContext;
  readonly fetcher: Fetcher;
  readonly layer: ChunkedLayer;
  readonly work: Work;
  readonly pieceBytes: number;
  readonly failed: (error: unknown) => void;
  /** Called with each pack that it writes to. */
  readonly wrote: (pack: PackId) => void;
}

/** Fetches spans of one chunked layer. Fetches wrong bytes once more, then fails the layer. */
export class SpanFetch {
  readonly #options: SpanFetchOptions;
  readonly #retried = new Set<string>();
  readonly #packs = new Set<PackId>();

  constructor(options: SpanFetchOptions) {
    this.#options = options;
  }

  /** Whether a pack may contain bytes of this layer from this pull. */
  wroteTo(pack: PackId): boolean {
    return this.#packs.has(pack);
  }

  /** The job that fetches a range; `retries` counts wrong bytes of its span so far. */
  job(range: SpanRange, retries = 0): FetchJob {
    return {
      work: this.#options.work,
      sizeBytes: range.blobEnd - range.blobStart,
      splits: range.splits ?? 0,
      failed: range.failed ?? this.#options.failed,
      run: async (pool, control, cost) => {
        const result = await pool.run({ ...this.#taskOf(range, retries), control });
        cost(result);
        await this.#accept(range, retries, result);
      },
    };
  }

  #taskOf(range: SpanRange, retries: number): FetchSpanTask {
    const { layer, pieceBytes } = this.#options;
    const { blobStart, blobEnd, tarStart, tarEnd, checkContents } = range;
    return {
      task: 'fetch-span',
      blob: layer.blob,
      table: layer.metadata.table,
      ...{ blobStart, blobEnd, tarStart, tarEnd },
      ...lastBytesFor(range, layer.metadata, retries),
      pieceBytes,
      checkContents: checkContents !== undefined,
    };
  }

  async #accept(range: SpanRange, retries: number, result: FetchSpanResult): Promise<void> {
    const { context, work, wrote } = this.#options;
    const { pack, packOffset, failure, stopped, wrong, goodTarBytes } = result;
    this.#packs.add(pack);
    wrote(pack);
    if (failure !== undefined) throw fromFailure(failure);
    if (work.dropped) return;
    const received = stopped === undefined ? range : this.#cutOff(range, stopped);
    context.packs.add(pack);
    if (wrong !== undefined) await this.#fetchAgain(received, retries + 1, wrong);
    const part = { pack, packOffset, lengthBytes: goodTarBytes };
    if (goodTarBytes > 0 || wrong === undefined) received.onPart(part, wrong === undefined);
  }

  /**
   * Ends a range where it was stopped, and adds jobs for the remainder, cut where the layer allows
   * it.
   */
  #cutOff(range: SpanRange, { blobEnd, tarEnd }: Pick<SpanRange, 'blobEnd' | 'tarEnd'>): SpanRange {
    const { fetcher, layer } = this.#options;
    const ends = [{ blobEnd, tarEnd }];
    const bytes = fetcher.partBytes(range.blobEnd - blobEnd);
    for (const { start } of cutRanges([{ start: blobEnd, end: range.blobEnd }], bytes)) {
      const blobStart = ends.at(-1)!.blobEnd;
      if (start <= blobStart) continue;
      const edge = findCutPoint(layer.metadata.table, { blobStart, blobEnd: range.blobEnd }, start);
      if (edge !== undefined) ends.push({ blobEnd: edge.blobAt, tarEnd: edge.tarAt });
    }
    ends.push({ blobEnd: range.blobEnd, tarEnd: range.tarEnd });
    const onParts = inOrder(range.onPart, ends.length);
    const splits = (range.splits ?? 0) + 1;
    for (let i = 1; i < ends.length; i++) {
      const { blobEnd: blobStart, tarEnd: tarStart } = ends[i - 1]!;
      fetcher.addFirst(this.job({ ...range, ...ends[i]!, blobStart, tarStart, onPart: onParts[i]!, splits }));
    }
    return { ...range, blobEnd, tarEnd, onPart: onParts[0]! };
  }

  /**
   * Fetches wrong bytes once more, ahead of all waiting jobs, and again as long as there is an
   * endpoint that has not sent them yet.
   */
  async #fetchAgain(
    range: SpanRange,
    retries: number,
    wrong: WrongBytes & { readonly elsewhere: boolean },
  ): Promise<void> {
    // Undecodable bytes and a content with a wrong digest can begin at the same offset: two faults.
    const key = `${wrong.blobStart}:${wrong.content}`;
    const wasWrong = this.#retried.has(key) || (wrong.content >= 0 && range.checkContents === 'again');
    const hopeless = wasWrong && !wrong.elsewhere;
    if (hopeless || retries > MAX_RETRIES) throw await this.#describe(wrong);
    this.#retried.add(key);
    this.#options.context.emit({ event: 'warning', message: `${wrong.problem}; fetching it again` });
    const { blobStart, tarStart } = wrong;
    this.#options.fetcher.addFirst(this.job({ ...range, blobStart, tarStart }, retries));
  }

  async #describe({ content, expected, actual, problem }: WrongBytes): Promise<PullError> {
    const hint =
      'the registry or a proxy changes bytes: report it to its operator, or pull from another registry';
    const message =
      expected === undefined || actual === undefined
        ? problem
        : `${await this.#nameOf(content)} does not match its digest: expected ${expected}, got ${actual}`;
    return new PullError('digest-mismatch', `${message}, twice`, { hint });
  }

  /** The path of a content, from the TOC of the layer. */
  async #nameOf(content: number): Promise<string> {
    const { layer, context } = this.#options;
    if (layer.metadata.toc === undefined) return `content ${content}`;
    const { digest: toc, uncompressedBytes: tocUncompressedBytes } = layer.metadata.toc;
    const task = { task: 'name-content', toc, tocUncompressedBytes, content } as const;
    try {
      return await context.metadata.with(tocUncompressedBytes, () => context.support.run(task));
    } catch (error) {
      return `content ${content} (${error instanceof Error ? error.message : String(error)})`;
    }
  }
}

/**
 * The bytes of a range that were received with the metadata; none when bytes have to be fetched
 * again.
 */
export function lastBytesFor(
  { blobEnd, checkContents }: Pick<SpanRange, 'blobEnd' | 'checkContents'>,
  { lastBytes }: LayerMetadata,
  retries: number,
): Pick<FetchSpanTask, 'lastBytes'> {
  const isOfUse = lastBytes !== undefined && lastBytes.blobStart < blobEnd;
  return isOfUse && retries === 0 && checkContents === undefined ? { lastBytes } : {};
}

/**
 * One `onPart` for each of `count` ranges that one was cut into, which calls `onPart` in tar order.
 */
function inOrder(onPart: SpanRange['onPart'], count: number): Array<SpanRange['onPart']> {
  const ranges = Array.from({ length: count }, () => ({ parts: [] as PackRun[], isComplete: false }));
  let next = 0;
  return ranges.map((range) => (part, last) => {
    range.parts.push(part);
    range.isComplete = last;
    for (; next < count; next++) {
      const { parts, isComplete } = ranges[next]!;
      for (const [i, ready] of parts.entries()) {
        onPart(ready, isComplete && next === count - 1 && i === parts.length - 1);
      }
      parts.length = 0;
      if (!isComplete) return;
    }
  });
}
