import { fromFailure, PullError } from '../format/error.js';
import { findCutPoint } from '../format/layer-table.js';
import { cutRanges } from '../format/ranges.js';
import type { FetchSpanResult, FetchSpanTask, LayerMetadata, WrongBytes } from '../pool/messages.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import type { PackId } from '../store/paths.js';
import type { Extent } from './assembly.js';
import type { Fetcher, FetchJob, RangeTurn, Work } from './fetcher.js';
import type { ChunkedLayer, FetchFigures } from './layer.js';
import type { PullContext } from './pull-context.js';

/** A range to fetch for a span of the plan: all of it, or what is left after bytes that proved wrong. */
export interface SpanRange {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /** Compute the digests of contents, as the DiffID failed: `again` where they came wrong in this pull before. */
  readonly checkContents?: 'first' | 'again';
  /** The next part, in tar order, is on disk, and nothing is known to be wrong with it; `last`: it is the end of the range. */
  readonly onPart: (part: Extent, last: boolean) => void;
  /** How often ranges were stopped that it was a part of. */
  readonly splits?: number;
  /** Who is told when it could not be fetched, where that is not who made the SpanFetch. */
  readonly failed?: (error: unknown) => void;
}

/** Places of one span that may come wrong once each; beyond that something on the way is broken for good. */
const MOST_RETRIES = 8;

/** Fetches spans of one chunked layer. Wrong bytes are fetched once more, then the layer has failed. */
export class SpanFetch {
  readonly #context: PullContext;
  readonly #fetcher: Fetcher;
  readonly #layer: ChunkedLayer;
  readonly #work: Work;
  readonly #pieceBytes: number;
  readonly #failed: (error: unknown) => void;
  readonly #wrote: (pack: PackId) => void;
  readonly #retried = new Set<string>();
  readonly #packs = new Set<PackId>();

  constructor(options: {
    context: PullContext;
    fetcher: Fetcher;
    layer: ChunkedLayer;
    work: Work;
    pieceBytes: number;
    failed: (error: unknown) => void;
    /** Is told which packs it writes to. */
    wrote: (pack: PackId) => void;
  }) {
    this.#context = options.context;
    this.#fetcher = options.fetcher;
    this.#layer = options.layer;
    this.#work = options.work;
    this.#pieceBytes = options.pieceBytes;
    this.#failed = options.failed;
    this.#wrote = options.wrote;
  }

  /** Whether bytes of this layer that came in this pull may be in a pack. */
  wroteTo(pack: PackId): boolean {
    return this.#packs.has(pack);
  }

  /** The job that fetches a range; `retries`: how often bytes of its span have come wrong before. */
  job(range: SpanRange, retries = 0): FetchJob {
    return {
      work: this.#work,
      sizeBytes: range.blobEnd - range.blobStart,
      splits: range.splits ?? 0,
      run: (pool, turn, cost) => this.#run(range, retries, pool, turn, cost),
      failed: range.failed ?? this.#failed,
    };
  }

  async #run(
    range: SpanRange,
    retries: number,
    pool: TaskRunner,
    turn: RangeTurn,
    cost: (figures: FetchFigures) => void,
  ): Promise<void> {
    const { blobStart, blobEnd, tarStart, tarEnd } = range;
    const { blob, metadata } = this.#layer;
    const result = await pool.run({
      task: 'fetch-span',
      ...turn,
      blob,
      table: metadata.table,
      blobStart,
      blobEnd,
      tarStart,
      tarEnd,
      ...lastBytesFor(range, metadata, retries),
      pieceBytes: this.#pieceBytes,
      checkContents: range.checkContents !== undefined,
    });
    cost(result);
    this.#packs.add(result.pack as PackId);
    this.#wrote(result.pack as PackId);
    if (result.failure !== undefined) throw fromFailure(result.failure);
    if (this.#work.dropped) return;
    const { stopped } = result;
    await this.#accept(stopped === undefined ? range : this.#cutOff(range, stopped), retries, result);
  }

  /** Ends a range where it was stopped, and has the rest fetched in parts that begin and end where the layer can be cut. */
  #cutOff(range: SpanRange, { blobEnd, tarEnd }: Pick<SpanRange, 'blobEnd' | 'tarEnd'>): SpanRange {
    const rest = { start: blobEnd, end: range.blobEnd };
    const ends = [{ blobEnd, tarEnd }];
    for (const { start } of cutRanges([rest], this.#fetcher.partBytes(rest.end - rest.start))) {
      const last = ends.at(-1)!;
      const behind = { blobStart: last.blobEnd, blobEnd: range.blobEnd };
      const edge = start > last.blobEnd ? findCutPoint(this.#layer.metadata.table, behind, start) : undefined;
      if (edge !== undefined) ends.push({ blobEnd: edge.blobAt, tarEnd: edge.tarAt });
    }
    ends.push({ blobEnd: range.blobEnd, tarEnd: range.tarEnd });
    const tell = inOrder(range.onPart, ends.length);
    const splits = (range.splits ?? 0) + 1;
    for (let i = 1; i < ends.length; i++) {
      const { blobEnd: blobStart, tarEnd: tarStart } = ends[i - 1]!;
      this.#fetcher.addFirst(
        this.job({ ...range, ...ends[i]!, blobStart, tarStart, onPart: tell[i]!, splits }),
      );
    }
    return { ...range, blobEnd, tarEnd, onPart: tell[0]! };
  }

  async #accept(range: SpanRange, retries: number, result: FetchSpanResult): Promise<void> {
    const { wrong, goodTarBytes, packOffset } = result;
    const pack = result.pack as PackId;
    this.#context.packs.add(pack);
    if (wrong !== undefined) await this.#fetchAgain(range, retries + 1, wrong);
    const part = { pack, offset: packOffset, lengthBytes: goodTarBytes };
    if (goodTarBytes > 0 || wrong === undefined) range.onPart(part, wrong === undefined);
  }

  /**
   * Bytes that came whole and wrong are asked for once more, before everything that waits, and as long as an endpoint
   * is left that has sent none.
   */
  async #fetchAgain(
    range: SpanRange,
    retries: number,
    wrong: WrongBytes & { readonly elsewhere: boolean },
  ): Promise<void> {
    // What cannot be decoded and a content with another digest can begin at one place and be two faults.
    const key = `${wrong.blobStart}:${wrong.content}`;
    const cameBefore = this.#retried.has(key) || (wrong.content >= 0 && range.checkContents === 'again');
    const hopeless = cameBefore && !wrong.elsewhere;
    if (hopeless || retries > MOST_RETRIES) throw await this.#describe(wrong);
    this.#retried.add(key);
    this.#context.emit({ event: 'warning', message: `${wrong.problem}; fetching it once more` });
    const { blobStart, tarStart } = wrong;
    this.#fetcher.addFirst(this.job({ ...range, blobStart, tarStart }, retries));
  }

  async #describe(wrong: WrongBytes): Promise<PullError> {
    const hint =
      'the registry or something on the way changes bytes: ask whoever runs it, or pull from another one';
    const { expected, actual, problem } = wrong;
    if (expected === undefined || actual === undefined) {
      return new PullError('digest-mismatch', `${problem}, twice`, { hint });
    }
    const name = await this.#nameOf(wrong.content);
    const message = `${name} does not match its digest: expected ${expected}, got ${actual}, twice`;
    return new PullError('digest-mismatch', message, { hint });
  }

  /** The path of a content, which only its TOC has. */
  async #nameOf(content: number): Promise<string> {
    const { toc } = this.#layer.metadata;
    if (toc === undefined) return `content ${content}`;
    const { digest, uncompressedBytes } = toc;
    try {
      const task = {
        task: 'name-content',
        toc: digest,
        tocUncompressedBytes: uncompressedBytes,
        content,
      } as const;
      return await this.#context.metadata.with(uncompressedBytes, () => this.#context.support.run(task));
    } catch (error) {
      return `content ${content} (${error instanceof Error ? error.message : String(error)})`;
    }
  }
}

/** What a range needs not ask for, as it came with the metadata; not when bytes proved wrong. */
export function lastBytesFor(
  { blobEnd, checkContents }: Pick<SpanRange, 'blobEnd' | 'checkContents'>,
  { lastBytes }: LayerMetadata,
  retries: number,
): Pick<FetchSpanTask, 'lastBytes'> {
  const isOfUse = lastBytes !== undefined && lastBytes.blobStart < blobEnd;
  return isOfUse && retries === 0 && checkContents === undefined ? { lastBytes } : {};
}

/** One `onPart` for each of the ranges that a range was cut into: however they come, the parts are told in tar order. */
function inOrder(onPart: SpanRange['onPart'], count: number): Array<SpanRange['onPart']> {
  const ranges = Array.from({ length: count }, () => ({ parts: [] as Extent[], isWhole: false }));
  let next = 0;
  return ranges.map((range) => (part, last) => {
    range.parts.push(part);
    range.isWhole = last;
    for (; next < count; next++) {
      const { parts, isWhole } = ranges[next]!;
      for (const [i, told] of parts.entries()) {
        onPart(told, isWhole && next === count - 1 && i === parts.length - 1);
      }
      parts.length = 0;
      if (!isWhole) return;
    }
  });
}
