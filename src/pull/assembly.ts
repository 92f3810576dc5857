import { PullError } from '../format/error.js';
import { SEGMENT, type Segments } from '../plan/plan.js';
import type { MetadataPartWithDigest } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { ChunkedLayer } from './layer.js';
import type { PullContext } from './pull-context.js';

/** A run of bytes in a pack. */
export interface Extent {
  readonly pack: PackId;
  readonly offset: number;
  readonly lengthBytes: number;
}

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
  readonly #spans = new Map<number, { parts: Extent[]; complete: boolean }>();
  #inline: Extent | undefined;
  #inlineUsed = 0;
  #next = 0;
  /** Bytes behind the last segment, which are on disk already. */
  #tail: Extent | undefined;

  /** `packs` is the table that cached segments point into. */
  constructor(segments: Segments, packs: readonly PackId[], tail?: Extent) {
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
  placeSpanPart(span: number, part: Extent, last: boolean): void {
    const known = this.#spans.get(span) ?? { parts: [], complete: false };
    known.parts.push(part);
    known.complete = last;
    this.#spans.set(span, known);
  }

  /** Adds all inline ranges, which lie one after the other. */
  placeInline(run: Extent): void {
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
      const { pack, offset, lengthBytes } = this.#tail;
      this.extents.push(pack, offset, lengthBytes);
      grown.push(pack, offset, lengthBytes);
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
        if (known === undefined || !known.complete) return false;
        for (const part of known.parts) push(part.pack, part.offset, part.lengthBytes);
        this.#spans.delete(source);
        return true;
      }
      case SEGMENT.inline:
        if (this.#inline === undefined) return false;
        push(this.#inline.pack, this.#inline.offset + this.#inlineUsed, lengthBytes);
        this.#inlineUsed += lengthBytes;
        return true;
      default: {
        const origin = layers[source]!;
        if (origin.front < sourceOffset + lengthBytes) {
          if (origin.complete) throw missingOrigin();
          return false;
        }
        const copy = origin.extents.slice(sourceOffset, sourceOffset + lengthBytes);
        for (let i = 0; i < copy.count; i++) push(copy.packAt(i), copy.offsetAt(i), copy.lengthAt(i));
        return true;
      }
    }
  }
}

function missingOrigin(): PullError {
  return new PullError(
    'digest-mismatch',
    'a layer below does not have a content that this layer shares with it',
  );
}

/**
 * Writes these tar ranges from tar-split (pairs [start, end)) to a pack, one after the other.
 * @throws PullError as fetching does
 */
export async function writeInline(
  context: PullContext,
  layer: ChunkedLayer,
  tarSplit: MetadataPartWithDigest,
  ranges: Float64Array,
): Promise<Extent> {
  const task = { task: 'write-inline', blob: layer.blob, tarSplit, ranges } as const;
  const { pack, packOffset, lengthBytes } = await context.metadata.with(tarSplit.uncompressedBytes, () =>
    context.support.run(task),
  );
  context.packs.add(pack);
  return { pack: pack, offset: packOffset, lengthBytes };
}
