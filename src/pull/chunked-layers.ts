import { PullError } from '../format/error.js';
import { SEGMENT, type Segments, type Span } from '../plan/plan.js';
import type { PackRun } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { Fetcher, Work } from './fetcher.js';
import { type ChunkedLayer, isChunked, type KnownLayer } from './layer.js';
import type { LayersPlan } from './prepare-layers.js';
import { LayerProver, repairLayer, writeInline } from './prove-layer.js';
import type { PullContext } from './pull-context.js';
import { SpanFetch } from './span-fetch.js';

/** One chunked layer while its bytes arrive. */
interface Filling {
  readonly layer: ChunkedLayer;
  readonly work: Work;
  readonly spans: SpanFetch;
  readonly prover: LayerProver;
}

interface Options {
  readonly context: PullContext;
  readonly layers: readonly KnownLayer[];
  readonly plan: LayersPlan;
  readonly fetcher: Fetcher;
  readonly pieceBytes: number;
  /** Called when all bytes of a layer are on disk, with the promise of its verified extents. */
  readonly onComplete: (row: number, verified: Promise<ExtentList | undefined>) => void;
  readonly onFailed: (row: number, error: unknown) => void;
}

/**
 * The chunked layers of one pull: fetches their spans, has their inline bytes written, and verifies
 * each layer behind its front. `row` is that of the layer in the pull.
 */
export class ChunkedLayers {
  readonly #options: Options;
  /** One for every layer: a chunked layer can copy from an opaque one below it. */
  readonly #assemblies: readonly LayerAssembly[];
  /** Undefined for opaque layers, and for those that were dropped. */
  readonly #fillings: Array<Filling | undefined>;
  /** Rows of the layers whose bytes are all on disk. */
  readonly #completed = new Set<number>();
  /** Rows of the layers that have something in a pack of this pull. */
  readonly #writers = new Map<PackId, Set<number>>();

  constructor(options: Options) {
    this.#options = options;
    const { context, layers, plan, fetcher, pieceBytes } = options;
    this.#assemblies = layers.map((layer, row) => {
      const tail = layer.metadata?.tail;
      if (tail !== undefined) this.#noteWriter(tail.pack, row);
      return new LayerAssembly(plan.chunked.layers[row]!.segments, plan.packs, tail);
    });
    this.#fillings = layers.map((layer, row) => {
      if (!isChunked(layer)) return undefined;
      const work = { layer: row, dropped: false };
      const failed = (error: unknown) => options.onFailed(row, error);
      const wrote = (pack: PackId) => this.#noteWriter(pack, row);
      const spans = new SpanFetch({ context, fetcher, layer, work, pieceBytes, failed, wrote });
      return { layer, work, spans, prover: new LayerProver(context, layer) };
    });
  }

  has(row: number): boolean {
    return this.#fillings[row] !== undefined;
  }

  /** Length of a layer's tar, as far as its front has moved. */
  tarBytes(row: number): number {
    return this.#assemblies[row]!.extents.lengthBytes;
  }

  /** The packs that have bytes of this layer alone. */
  packsOf(row: number): PackId[] {
    return [...this.#writers].flatMap(([pack, rows]) => (rows.size === 1 && rows.has(row) ? [pack] : []));
  }

  /**
   * Has the inline bytes written, layer after layer: a tar-split takes 48 MB of memory for 40,000
   * files.
   */
  async writeInlines(): Promise<void> {
    for (const row of this.#fillings.keys()) await this.#writeInline(row);
  }

  /** Adds all spans to the fetcher. */
  fetch(): void {
    const { fetcher, plan } = this.#options;
    for (const [row, filling] of this.#fillings.entries()) {
      if (filling === undefined) continue;
      const { firstSpan, endSpan } = plan.chunked.layers[row]!;
      const spans = plan.chunked.spans.slice(firstSpan, endSpan);
      fetcher.add(spans.map((span, i) => this.#job(filling, span, firstSpan + i)));
    }
    this.advance();
  }

  /** Gives up a chunked layer, which is then pulled as an opaque one. Returns its work. */
  drop(row: number): Work {
    const { work, prover } = this.#fillings[row]!;
    work.dropped = true;
    this.#fillings[row] = undefined;
    prover.abandon();
    return work;
  }

  /** Lets other layers copy from an opaque layer that is verified. */
  addOpaque(row: number, extents: ExtentList): void {
    this.#assemblies[row]!.replace(extents);
  }

  /**
   * Moves every front as far as possible, in order: layers copy only from earlier parts of the
   * pull.
   */
  advance(): void {
    for (const [row, filling] of this.#fillings.entries()) {
      if (filling === undefined || this.#completed.has(row)) continue;
      const assembly = this.#assemblies[row]!;
      try {
        filling.prover.feed(assembly.advance(this.#assemblies));
      } catch (error) {
        this.#options.onFailed(row, error);
        continue;
      }
      if (!assembly.complete) continue;
      this.#completed.add(row);
      this.#options.onComplete(row, this.#verify(filling, assembly));
    }
  }

  #noteWriter(pack: PackId, row: number): void {
    const rows = this.#writers.get(pack) ?? new Set();
    this.#writers.set(pack, rows.add(row));
  }

  #job({ spans }: Filling, span: Span, spanRow: number) {
    return spans.job({
      ...span,
      onPart: (part, last) => {
        this.#assemblies[span.layer]!.placeSpanPart(spanRow, part, last);
        this.advance();
      },
    });
  }

  async #writeInline(row: number): Promise<void> {
    const filling = this.#fillings[row];
    const tarSplit = filling?.layer.metadata.tarSplit;
    const ranges = this.#assemblies[row]!.inlineRanges();
    if (filling === undefined || tarSplit === undefined || ranges.length === 0) return;
    try {
      const extent = await writeInline(this.#options.context, filling.layer, tarSplit, ranges);
      this.#noteWriter(extent.pack, row);
      if (filling.work.dropped) return;
      this.#assemblies[row]!.placeInline(extent);
      this.advance();
    } catch (error) {
      if (!filling.work.dropped) this.#options.onFailed(row, error);
    }
  }

  /**
   * Verifies a layer whose bytes are all on disk, and repairs it if needed; undefined when it was
   * dropped.
   */
  async #verify({ layer, spans, prover, work }: Filling, assembly: LayerAssembly) {
    const { context, fetcher } = this.#options;
    let { extents } = assembly;
    const actual = await prover.end(extents);
    if (actual !== layer.diffId) {
      extents = await repairLayer({ context, fetcher, layer, extents, actual, spans });
      if (!work.dropped) assembly.replace(extents);
    }
    return work.dropped ? undefined : extents;
  }
}

const MISSING_ORIGIN = 'a layer below does not have a content that this layer shares with it';

/**
 * Assembles the extents of one layer from its segments, in tar order, as their bytes reach the
 * disk. The front is the tar offset before which all extents are known; those are in `extents`, and
 * never change. A copied segment waits for the front of its origin, which always comes earlier in
 * the pull.
 */
export class LayerAssembly {
  extents = new ExtentList();
  readonly #segments: Segments;
  readonly #packs: readonly PackId[];
  /** Parts of the spans behind the front, by row of the plan's spans. */
  readonly #spans = new Map<number, { parts: PackRun[]; complete: boolean }>();
  #inline: PackRun | undefined;
  #inlineUsed = 0;
  #next = 0;
  /** Bytes behind the last segment, which are on disk already. */
  #tail: PackRun | undefined;

  /** `packs` is the table that cached segments point into. */
  constructor(segments: Segments, packs: readonly PackId[], tail?: PackRun) {
    this.#segments = segments;
    this.#packs = packs;
    this.#tail = tail;
  }

  get front(): number {
    return this.extents.lengthBytes;
  }

  get complete(): boolean {
    return this.#next === this.#segments.count && this.#tail === undefined;
  }

  /** Replaces all extents: the layer was repaired, or pulled as an opaque one. */
  replace(extents: ExtentList): void {
    this.extents = extents;
    this.#next = this.#segments.count;
    this.#tail = undefined;
  }

  /** Tar ranges that come from tar-split, as pairs [start, end), ascending. */
  inlineRanges(): Float64Array {
    const { kind, tarStart, count } = this.#segments;
    const pairs: number[] = [];
    for (let i = 0; i < count; i++) {
      if (kind[i] === SEGMENT.inline) pairs.push(tarStart[i]!, tarStart[i + 1]!);
    }
    return Float64Array.from(pairs);
  }

  /** Adds the next part of a span, in tar order; `last` at the end of the span. */
  placeSpanPart(span: number, part: PackRun, last: boolean): void {
    const known = this.#spans.get(span) ?? { parts: [], complete: false };
    known.parts.push(part);
    known.complete = last;
    this.#spans.set(span, known);
  }

  /** Adds all inline ranges, which lie one after the other. */
  placeInline(run: PackRun): void {
    this.#inline = run;
  }

  /**
   * Moves the front as far as possible and returns the extents that it passed. `layers` are all of
   * the pull.
   * @throws PullError `digest-mismatch` when a layer lacks a content that this one copies from it
   */
  advance(layers: readonly LayerAssembly[]): ExtentList {
    const grown = new ExtentList();
    while (this.#next < this.#segments.count && this.#append(this.#next, layers, grown)) this.#next += 1;
    if (this.#next === this.#segments.count && this.#tail !== undefined) {
      const { pack, packOffset, lengthBytes } = this.#tail;
      this.extents.push(pack, packOffset, lengthBytes);
      grown.push(pack, packOffset, lengthBytes);
      this.#tail = undefined;
    }
    return grown;
  }

  /** Appends a segment. Returns false when its bytes are not on disk yet. */
  #append(row: number, layers: readonly LayerAssembly[], grown: ExtentList): boolean {
    const push = (pack: PackId, offset: number, lengthBytes: number): void => {
      grown.push(pack, offset, lengthBytes);
      this.extents.push(pack, offset, lengthBytes);
    };
    const lengthBytes = this.#segments.lengthBytes[row]!;
    const source = this.#segments.source[row]!;
    const sourceOffset = this.#segments.sourceOffset[row]!;
    switch (this.#segments.kind[row]) {
      case SEGMENT.cached:
        push(this.#packs[source]!, sourceOffset, lengthBytes);
        return true;
      case SEGMENT.span: {
        const known = this.#spans.get(source);
        if (!known?.complete) return false;
        for (const part of known.parts) push(part.pack, part.packOffset, part.lengthBytes);
        this.#spans.delete(source);
        return true;
      }
      case SEGMENT.inline:
        if (this.#inline === undefined) return false;
        push(this.#inline.pack, this.#inline.packOffset + this.#inlineUsed, lengthBytes);
        this.#inlineUsed += lengthBytes;
        return true;
      default: {
        const origin = layers[source]!;
        if (origin.front < sourceOffset + lengthBytes) {
          if (!origin.complete) return false;
          throw new PullError('digest-mismatch', MISSING_ORIGIN);
        }
        const copy = origin.extents.slice(sourceOffset, sourceOffset + lengthBytes);
        for (let i = 0; i < copy.count; i++) push(copy.packAt(i), copy.offsetAt(i), copy.lengthAt(i));
        return true;
      }
    }
  }
}
