import type { Span } from '../plan/plan.js';
import type { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import { LayerAssembly, LayerProver, writeInline } from './assembly.js';
import type { Fetcher, Work } from './fetcher.js';
import { type ChunkedLayer, isChunked, type KnownLayer } from './layer.js';
import type { LayersPlan } from './prepare-layers.js';
import type { PullContext } from './pull-context.js';
import { repairLayer } from './repair.js';
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
      const extent = tail && {
        pack: tail.pack,
        offset: tail.packOffset,
        lengthBytes: tail.lengthBytes,
      };
      if (extent !== undefined) this.#noteWriter(extent.pack, row);
      return new LayerAssembly(plan.chunked.layers[row]!.segments, plan.packs, extent);
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
    for (const [row, filling] of this.#fillings.entries()) {
      if (filling !== undefined) this.#options.fetcher.add(this.#jobsOf(row, filling));
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

  #jobsOf(row: number, filling: Filling) {
    const { spans, layers } = this.#options.plan.chunked;
    const { firstSpan, endSpan } = layers[row]!;
    return spans.slice(firstSpan, endSpan).map((span, i) => this.#job(filling, span, firstSpan + i));
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
