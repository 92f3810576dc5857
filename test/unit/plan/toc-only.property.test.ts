import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerToPlan, ResumedPiece } from '../../../src/plan/layer-parts.js';
import { type PullPlan, planPull, SEGMENT, type Span } from '../../../src/plan/plan.js';
import type { PlanLimits } from '../../../src/plan/spans.js';
import { type Random, seededRandom } from '../../support/random.js';
import { assertSameBytes, type RandomLayer, randomImage } from '../../support/random-image.js';
import { type RandomTocOnly, randomTocOnly } from '../../support/random-toc-only.js';
import { eachSegmentIn } from '../../support/slow-plan.js';

const SEEDS = 3000;

/** A layer with tar-split or without. */
type AnyLayer = RandomLayer | RandomTocOnly;

interface Case {
  readonly image: { readonly layers: readonly AnyLayer[]; readonly packs: number[][] };
  readonly plan: PullPlan;
  readonly limits: PlanLimits;
}

/** What is fetched of a layer: one entry for each byte of its blob. */
function fetched({ image, plan }: Case, number: number): Uint8Array {
  const bytes = new Uint8Array(image.layers[number]!.want.table.dataEnd);
  for (const { layer, blobStart, blobEnd } of plan.spans) {
    if (layer === number) for (let at = blobStart; at < blobEnd; at++) bytes[at]! += 1;
  }
  return bytes;
}

test('carrying out the plan gives the tar, although the table does not know its offsets', () => {
  eachTocOnly((one, layer, number) => {
    const { segments } = one.plan.layers[number]!;
    const bytes = [...Array(segments.count).keys()].flatMap((row) => segmentBytes(one, number, row));
    assertSameBytes(bytes, layer.tar);
    assert.equal(segments.tarStart[0], 0);
    assert.equal(segments.tarStart[segments.count], segments.count === 0 ? 0 : layer.want.table.tarBytes);
    assert.ok(!segments.kind.includes(SEGMENT.inline));
  });
});

test('a span begins and ends at cut points, and decodes to no more than is allotted', () => {
  eachTocOnly(({ plan }, layer, number) => {
    const { firstSpan, endSpan } = plan.layers[number]!;
    let before: Span | undefined;
    for (const span of plan.spans.slice(firstSpan, endSpan)) {
      assert.equal(span.layer, number);
      assert.ok(layer.edges.includes(span.blobStart) && layer.edges.includes(span.blobEnd));
      assert.ok(decode(layer, span).length <= span.tarEnd - span.tarStart);
      assert.ok((before?.blobEnd ?? 0) <= span.blobStart && (before?.tarEnd ?? 0) <= span.tarStart);
      before = span;
    }
  });
});

test('every byte is fetched once or on disk, and headers are on disk only in what was resumed', () => {
  eachTocOnly((one, layer, number) => {
    const bytes = fetched(one, number);
    const pieces = usablePieces(layer);
    const resumed = (blobAt: number) =>
      pieces.some(({ blobStart, blobEnd }) => blobStart <= blobAt && blobAt < blobEnd);
    const { edges, contents, layout } = layer;
    for (let edge = 0; edge + 1 < edges.length; edge++) {
      const [start, end] = [edges[edge]!, edges[edge + 1]!];
      // A content, or all of it from here on, and nothing else.
      const hasMore = layout === 'shared-frames' && !isInnerChunk(layer, start, end);
      const isGap = !contents.some(({ blob }) => blob[0] <= start && end <= blob[1]);
      for (let at = start; at < end; at++) {
        assert.ok(bytes[at]! <= 1);
        const wanted = resumed(at) ? 0 : isGap || hasMore ? 1 : bytes[at];
        if (bytes[at] !== wanted) assert.fail(`byte ${at} is fetched ${bytes[at]} times, not ${wanted}`);
      }
    }
  });
});

test('a cached content is fetched only where a span includes it', () => {
  eachTocOnly((one, layer, number) => {
    if (layer.layout === 'shared-frames' || layer.want.resumed.length > 0) return;
    const bytes = fetched(one, number);
    for (const [row, { blob }] of layer.contents.entries()) {
      if (layer.want.cachedPack[row]! < 0) continue;
      const own = bytes.slice(blob[0], blob[1]);
      const distance = blob[1] - blob[0];
      // Gaps stand on both sides, so that a content is a distance by itself unless the next one touches it.
      const { dataEnd } = layer.want.table;
      if (blob[1] === dataEnd) continue;
      if (layer.contents.some((other) => other.blob[0] === blob[1] || other.blob[1] === blob[0])) continue;
      if (distance <= one.limits.gapBytes) assert.ok(own.every((times) => times === 1));
      else if (one.limits.tocOnlyExtraShare === 0 && one.limits.mostlyMissingShare > 1)
        assert.ok(own.every((times) => times === 0));
    }
  });
});

test('totals are what a recount gives', () => {
  eachTocOnly((one, layer, number) => {
    const { totals, segments, firstSpan, endSpan } = one.plan.layers[number]!;
    const sums = { held: 0, copy: 0 };
    for (let row = 0; row < segments.count; row++) {
      const bytes = segments.lengthBytes[row]!;
      if (segments.kind[row] === SEGMENT.cached) sums.held += bytes;
      if (segments.kind[row] === SEGMENT.copy) sums.copy += bytes;
    }
    const resumedBytes = usablePieces(layer).reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    assert.equal(
      totals.fetchBytes,
      fetched(one, number).reduce((sum, times) => sum + times, 0),
    );
    assert.equal(totals.resumedBytes, resumedBytes);
    assert.equal(totals.reusedBytes + totals.resumedBytes, sums.held);
    assert.equal(totals.copiedBytes, sums.copy);
    assert.equal(totals.inlineBytes, 0);
    assert.equal(totals.requests, endSpan - firstSpan);
    const spans = one.plan.spans.slice(firstSpan, endSpan);
    const allotted = spans.reduce((sum, { tarStart, tarEnd }) => sum + tarEnd - tarStart, 0);
    assert.ok(totals.decodedBytes >= 0 && totals.decodedBytes <= allotted);
  });
});

test('the random layers cover every case of the other tests', () => {
  const seen = new Map<string, number>();
  const see = (what: string, is: boolean) => seen.set(what, (seen.get(what) ?? 0) + (is ? 1 : 0));
  eachTocOnly((one, layer, number) => {
    const { totals, segments } = one.plan.layers[number]!;
    const { layout, contents, want } = layer;
    see(`${layout}, several spans`, totals.requests > 2);
    see(`${layout}, reused`, totals.reusedBytes > 0);
    see(`${layout}, resumed`, totals.resumedBytes > 0);
    see(`${layout}, copied`, totals.copiedBytes > 0);
    see(`${layout}, chunks`, want.table.chunkBlobStart.length > 0);
    see('no contents', contents.length === 0);
    see('nothing fetched', totals.requests === 0 && segments.count > 0);
    see(
      'shared frames',
      contents.some(({ blob }, row) => blob[0] === contents[row - 1]?.blob[0]),
    );
    const pieces = usablePieces(layer);
    see(
      'a piece that ends within a content',
      pieces.some(({ blobEnd }) => !layer.edges.includes(blobEnd)),
    );
    see('a piece that is of no use', pieces.length < layer.trueResumed.length);
    see(
      'contents that touch',
      layout === 'separate-frames' &&
        contents.some(({ blob }, row) => blob[0] === contents[row - 1]?.blob[1]),
    );
  });
  for (const [what, times] of seen) assert.ok(times >= 20, `${what}: ${times}`);
});

/** Whether between these edges lies part of a content that goes on behind them. */
function isInnerChunk({ contents }: RandomTocOnly, start: number, end: number): boolean {
  return contents.some(({ blob, chunks = [] }) => {
    const starts = chunks.map(({ blobStart }) => blobStart);
    return blob[0] <= start && end < blob[1] && starts.includes(end) && starts.includes(start);
  });
}

/** The true pieces that go from edge to edge, alone or joined, and have room in what is allotted. */
function usablePieces(layer: RandomTocOnly): ResumedPiece[] {
  const { trueResumed, edges } = layer;
  const usable: ResumedPiece[] = [];
  let chain: ResumedPiece[] = [];
  const isEdge = (at: number) => edges.includes(at);
  for (const piece of trueResumed) {
    if (chain.at(-1)?.blobEnd !== piece.blobStart) chain = [];
    if (chain.length === 0 && !isEdge(piece.blobStart)) continue;
    chain.push(piece);
    if (!isEdge(piece.blobEnd)) continue;
    if (chain.every((part) => hasRoom(part, layer))) usable.push(...chain);
    chain = [];
  }
  return usable;
}

/** Whether a share of what is allotted to the cells that a piece has a part of is left for it: segments have no length 0. */
function hasRoom({ blobStart, blobEnd }: ResumedPiece, layer: RandomTocOnly): boolean {
  const tarAt = (blobAt: number) => {
    const edge = layer.edges.findLastIndex((at) => at <= blobAt);
    const from = tarAtEdge(layer, layer.edges[edge]!);
    if (layer.edges[edge] === blobAt) return from;
    const [start, end] = [layer.edges[edge]!, layer.edges[edge + 1]!];
    return from + Math.floor(((blobAt - start) / (end - start)) * (tarAtEdge(layer, end) - from));
  };
  return tarAt(blobStart) < tarAt(blobEnd);
}

/** The tar offset allotted to an edge. */
function tarAtEdge({ contents, want, layout }: RandomTocOnly, at: number): number {
  if (at === want.table.dataEnd) return want.table.tarBytes;
  const content = contents.find(({ blob }) => blob[0] === at);
  if (content !== undefined) return content.tarStart;
  const chunk = contents
    .flatMap(({ chunks = [] }) => chunks.slice(1))
    .find(({ blobStart }) => blobStart === at);
  if (chunk !== undefined) return chunk.tarStart;
  const ended = layout === 'separate-frames' ? contents.find(({ blob }) => blob[1] === at) : undefined;
  return ended === undefined ? 0 : ended.tarStart + ended.sizeBytes;
}

/** The plan of many random images with at least one layer without tar-split, layer by layer; a failure names its seed. */
function eachTocOnly(check: (one: Case, layer: RandomTocOnly, number: number) => void): void {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const { layers: split, packs: full } = randomImage(random);
    const packs = full.map((bytes) => [...bytes]);
    const shares = {
      held: random.chance(0.3) ? 0 : random.int(0, 100) / 100,
      resumed: random.chance(0.4) ? 0 : random.int(0, 100) / 100,
      names: random.int(1, 40),
    };
    const layers: AnyLayer[] = [...split];
    for (let more = random.int(1, 2); more > 0; more--) {
      layers.splice(random.int(0, layers.length), 0, randomTocOnly(random, packs, shares));
    }
    const limits = randomLimits(random);
    const wants: LayerToPlan[] = layers.map(({ want }) => want);
    const one: Case = { image: { layers, packs }, plan: planPull(wants, limits), limits };
    try {
      for (const [number, layer] of layers.entries()) if ('layout' in layer) check(one, layer, number);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
}

function randomLimits(random: Random): PlanLimits {
  const gapBytes = random.int(0, 40);
  return {
    connections: random.int(1, 8),
    gapBytes,
    extraShare: random.chance(0.5) ? 0 : random.int(0, 60) / 100,
    tocOnlyExtraShare: random.chance(0.5) ? 0 : random.int(0, 60) / 100,
    mostlyMissingShare: random.chance(0.5) ? 2 : random.int(0, 100) / 100,
    requestBytes: gapBytes + random.int(0, 100),
    minSpanBytes: random.int(1, 200),
    spanBlobBytes: random.int(20, random.chance(0.3) ? 200 : 2000),
    spanTarBytes: random.int(20, 3000),
  };
}

/** The bytes of a segment, had everything been done as planned. */
function segmentBytes({ image, plan }: Case, number: number, row: number): readonly number[] {
  const { segments } = plan.layers[number]!;
  const source = segments.source[row]!;
  const from = segments.sourceOffset[row]!;
  const bytes = segments.lengthBytes[row]!;
  if (segments.kind[row] === SEGMENT.cached) {
    assert.ok(from + bytes <= image.packs[source]!.length);
    return image.packs[source]!.slice(from, from + bytes);
  }
  if (segments.kind[row] === SEGMENT.span) {
    const span = plan.spans[source]!;
    assert.deepEqual(
      [span.layer, span.tarStart, span.tarEnd],
      [number, segments.tarStart[row], segments.tarStart[row + 1]],
    );
    return decode(image.layers[number]!, span);
  }
  assert.equal(segments.kind[row], SEGMENT.copy);
  const layer = image.layers[source]!;
  assert.ok(!('layout' in layer), 'only where the tar is known is there something to copy');
  // Somewhere on disk already, or fetched: nothing that is itself a copy or inline.
  const target = plan.layers[source]!.segments;
  eachSegmentIn(target, from, from + bytes, (part) => {
    assert.ok(target.kind[part] === SEGMENT.span || target.kind[part] === SEGMENT.cached);
  });
  return layer.tar.slice(from, from + bytes);
}

function decode(layer: AnyLayer, span: Span): number[] {
  const frames = layer.frames.filter(
    ({ blobStart, blobEnd }) => blobStart < span.blobEnd && blobEnd > span.blobStart,
  );
  assert.equal(frames[0]!.blobStart, span.blobStart);
  assert.equal(frames.at(-1)!.blobEnd, span.blobEnd);
  return frames.flatMap((frame) => layer.tar.slice(frame.tarStart, frame.tarEnd));
}
