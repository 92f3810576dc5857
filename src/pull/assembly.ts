import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { SEGMENT, type Segments } from '../plan/plan.js';
import type { FollowedLayer } from '../pool/layer-follower.js';
import type { MetadataPartWithDigest, VerifyLayerResult } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { ChunkedLayer, KnownLayer } from './layer.js';
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

/**
 * The tar length of an opaque layer is unknown until its end. There are tags for this many times
 * its blob, and for at least 1 GiB; a follower gives up a longer tar.
 */
const USUAL_RATIO = 16;
const SMALL_TAR_BYTES = 2 ** 30;

/**
 * A layer that states to be larger is not followed: it hardly fits on a disk. Tags take 12 bytes a
 * MiB.
 */
const MAX_FOLLOWED_TAR_BYTES = 2 ** 40;

/**
 * Hashes one layer in a worker, behind its front: sends it extents as they arrive, in tar order.
 */
export class LayerProver {
  readonly #context: PullContext;
  readonly #diffId: Digest;
  readonly #followed: FollowedLayer | undefined = undefined;
  #port: MessagePort | undefined;
  #result: Promise<VerifyLayerResult> | undefined;

  constructor(context: PullContext, { diffId, metadata, blob }: KnownLayer) {
    this.#context = context;
    this.#diffId = diffId;
    const maxTarBytes = metadata?.table.tarBytes ?? Math.max(SMALL_TAR_BYTES, USUAL_RATIO * blob.sizeBytes);
    if (maxTarBytes <= MAX_FOLLOWED_TAR_BYTES) this.#followed = context.follower?.follow(diffId, maxTarBytes);
  }

  /** Adds the next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count === 0) return;
    this.#open().postMessage(extents.toRows());
    this.#followed?.feed(extents.toRows());
  }

  /**
   * Returns the digest of all bytes, or null when a pack does not have all of them any more.
   * `extents` are all that was fed. If only zeros at the end are missing for the DiffID, appends
   * them to `extents` and returns the DiffID.
   */
  async end(extents: ExtentList): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    const { digest, isTagged, padding } = await this.#result!.finally(() => port.close());
    if (padding !== undefined) {
      const zeros = new ExtentList();
      zeros.push(padding.pack, padding.packOffset, padding.lengthBytes);
      extents.append(zeros);
      this.#context.packs.add(padding.pack);
      this.#followed?.feed(zeros.toRows());
    }
    this.#followed?.end(digest === this.#diffId && isTagged);
    return digest;
  }

  /** Ends the hash without its digest. */
  abandon(): void {
    const port = this.#port;
    this.#followed?.end(false);
    port?.postMessage(null);
    this.#result?.catch(() => {}).then(() => port?.close());
  }

  #open(): MessagePort {
    if (this.#port === undefined) {
      const { port1, port2 } = new MessageChannel();
      this.#port = port1;
      const task = { task: 'verify-layer', diffId: this.#diffId, port: port2 } as const;
      const tags = this.#followed?.tags;
      this.#result = this.#context.support.run(tags === undefined ? task : { ...task, tags }, [port2]);
      this.#result.catch(() => {}); // `end` throws it
    }
    return this.#port;
  }
}
