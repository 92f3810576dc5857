import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PlanLimits } from '../../../src/plan/limits.js';
import { type PullPlan, planPull, type Span } from '../../../src/plan/plan.js';
import { eachSegmentIn, SEGMENT, segmentAt } from '../../../src/plan/segments.js';
import { type Random, seededRandom } from '../../support/random.js';
import { type RandomImage, type RandomLayer, randomImage } from '../../support/random-image.js';

const SEEDS = 2000;

/** What a byte of a blob is to the slow model of the gap rule. */
type Mark = 'wanted' | 'other' | 'barrier';

test('every byte of every tar comes from its plan', () => {
  eachPlan((image, plan) => {
    for (const [number, layer] of image.layers.entries()) {
      const { segments } = plan.layers[number]!;
      assert.equal(segments.tarStart[0], 0);
      assert.equal(segments.tarStart[segments.count], layer.tar.length);
      for (let row = 0; row < segments.count; row++) {
        const [start, end] = [segments.tarStart[row]!, segments.tarStart[row + 1]!];
        assert.ok(start < end);
        assert.deepEqual(segmentBytes(image, plan, number, row, start, end), layer.tar.slice(start, end));
      }
    }
  });
});

test('inline segments are never parts of a content, and no two of them touch', () => {
  eachPlan((image, plan) => {
    for (const [number, { contents }] of image.layers.entries()) {
      const { segments } = plan.layers[number]!;
      for (let row = 0; row < segments.count; row++) {
        if (segments.kind[row] !== SEGMENT.inline) continue;
        assert.notEqual(row > 0 ? segments.kind[row - 1] : undefined, SEGMENT.inline);
        const [start, end] = [segments.tarStart[row]!, segments.tarStart[row + 1]!];
        assert.ok(contents.every((one) => one.tarStart + one.sizeBytes <= start || one.tarStart >= end));
      }
    }
  });
});

test('copies point at an earlier place that is no copy', () => {
  eachPlan((_image, plan) => {
    for (const [number, { segments }] of plan.layers.entries()) {
      for (let row = 0; row < segments.count; row++) {
        if (segments.kind[row] !== SEGMENT.copy) continue;
        const [layer, from] = [segments.source[row]!, segments.sourceOffset[row]!];
        const bytes = segments.tarStart[row + 1]! - segments.tarStart[row]!;
        assert.ok(layer < number || (layer === number && from + bytes <= segments.tarStart[row]!));
        eachSegmentIn(plan.layers[layer]!.segments, from, from + bytes, (target) => {
          const kind = plan.layers[layer]!.segments.kind[target];
          assert.ok(kind === SEGMENT.span || kind === SEGMENT.held);
        });
      }
    }
  });
});

test('what is fetched is what a slow model of the gap rule fetches, each byte once', () => {
  eachPlan((image, plan, limits) => {
    const expected = slowFetched(image, limits);
    const actual = image.layers.map((layer) => new Uint8Array(layer.want.table.dataEnd));
    for (const span of plan.spans) {
      for (let at = span.blobStart; at < span.blobEnd; at++) actual[span.layer]![at]!++;
    }
    for (const [number, layer] of image.layers.entries()) {
      for (const frame of layer.frames) {
        // Frames that decode to nothing may be cut off a run; nobody misses them.
        const empty = frame.tarStart === frame.tarEnd;
        for (let at = frame.blobStart; at < frame.blobEnd; at++) {
          const [is, should] = [actual[number]![at]!, expected[number]![at]!];
          assert.ok(
            is === should || (empty && is < should),
            `layer ${number} byte ${at}: ${is}, not ${should}`,
          );
        }
      }
    }
  });
});

test('spans are in order, disjoint, end at known boundaries and name the contents in them', () => {
  eachPlan((image, plan) => {
    let before: Span | undefined;
    for (const span of plan.spans) {
      if (before?.layer === span.layer) {
        assert.ok(before.blobEnd <= span.blobStart && before.tarEnd <= span.tarStart);
      } else assert.ok(before === undefined || before.layer < span.layer);
      before = span;
      const layer = image.layers[span.layer]!;
      const known = knownBoundaries(layer);
      assert.ok(known.has(span.blobStart) && known.has(span.blobEnd));
      const rows = layer.contents.flatMap(({ tarStart, sizeBytes }, row) =>
        tarStart < span.tarEnd && tarStart + sizeBytes > span.tarStart ? [row] : [],
      );
      assert.deepEqual(range(span.firstContent, span.endContent), rows);
    }
  });
});

test('a span is above the limits only for one part that is so alone', () => {
  eachPlan((image, plan, limits) => {
    const over = (blob: number, tar: number) => blob > limits.spanBlobBytes || tar > limits.spanTarBytes;
    for (const span of plan.spans) {
      if (!over(span.blobEnd - span.blobStart, span.tarEnd - span.tarStart)) continue;
      const { frames } = image.layers[span.layer]!;
      const cuts = [...knownBoundaries(image.layers[span.layer]!)].sort((a, b) => a - b);
      const inside = cuts.filter((at) => at >= span.blobStart && at <= span.blobEnd);
      const parts = inside.slice(1).map((end, i) => {
        const own = frames.filter((frame) => frame.blobStart >= inside[i]! && frame.blobEnd <= end);
        return over(end - inside[i]!, own.at(-1)!.tarEnd - own[0]!.tarStart);
      });
      assert.equal(parts.filter(Boolean).length > 0, true);
      assert.ok(span.endContent - span.firstContent <= 1);
    }
  });
});

test('totals are what a recount of the bytes gives', () => {
  eachPlan((image, plan) => {
    const names = ['fetchBytes', 'decodedBytes', 'reusedBytes', 'copiedBytes', 'resumedBytes', 'inlineBytes'];
    const sums = new Map<string, number>([['requests', plan.spans.length]]);
    for (const [number, layer] of image.layers.entries()) {
      const expected = recount(image, plan, number);
      const { totals, firstSpan, endSpan } = plan.layers[number]!;
      assert.deepEqual({ ...totals }, { ...expected, requests: endSpan - firstSpan });
      const tarBytes = Object.values(expected).reduce((sum, bytes) => sum + bytes, -expected.fetchBytes);
      assert.equal(tarBytes, layer.tar.length);
      assert.ok(plan.spans.slice(firstSpan, endSpan).every((span) => span.layer === number));
      for (const name of names) {
        sums.set(name, (sums.get(name) ?? 0) + expected[name as keyof typeof expected]);
      }
    }
    for (const [name, sum] of sums) assert.equal(plan.totals[name as keyof typeof plan.totals], sum);
  });
});

test('the random images have all of what the other tests are about', () => {
  const seen = new Map<string, number>();
  const see = (what: string, is: boolean) => seen.set(what, (seen.get(what) ?? 0) + (is ? 1 : 0));
  eachPlan((image, plan, limits) => {
    for (const [name, bytes] of Object.entries(plan.totals)) see(name, bytes > 0);
    for (const [number, layer] of image.layers.entries()) {
      see('empty layer', layer.contents.length === 0);
      see('chunks', layer.want.table.chunkBlobStart.length > 0);
      see('false piece', layer.want.resumed.length > layer.trueResumed.length);
      see('layer of several spans', plan.layers[number]!.totals.requests > 2);
    }
    for (const span of plan.spans) {
      const contents = image.layers[span.layer]!.contents;
      const first = contents[span.firstContent];
      see('span within a content', first !== undefined && first.blob[0] < span.blobStart);
      see('span of many contents', span.endContent - span.firstContent > 3);
      see('span above the limits', span.blobEnd - span.blobStart > limits.spanBlobBytes);
    }
  });
  for (const [what, times] of seen) assert.ok(times >= 100, `${what}: ${times}`);
});

/** Plans many random images with random small limits; a failure names its seed. */
function eachPlan(check: (image: RandomImage, plan: PullPlan, limits: PlanLimits) => void): void {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const image = randomImage(random);
    const limits = randomLimits(random);
    const plan = planPull(
      image.layers.map((layer) => layer.want),
      limits,
    );
    try {
      check(image, plan, limits);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
}

function randomLimits(random: Random): PlanLimits {
  return {
    connections: random.int(1, 8),
    gapBytes: random.int(0, 40),
    extraShare: random.int(0, 60) / 100,
    minSpanBytes: random.int(1, 200),
    spanBlobBytes: random.int(20, 2000),
    spanTarBytes: random.int(20, 3000),
  };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** The bytes of a part of a segment, had everything been done as planned. */
function segmentBytes(
  image: RandomImage,
  plan: PullPlan,
  number: number,
  row: number,
  start: number,
  end: number,
): number[] {
  const { segments } = plan.layers[number]!;
  assert.equal(segmentAt(segments, start), row);
  const layer = image.layers[number]!;
  const source = segments.source[row]!;
  const from = segments.sourceOffset[row]! + start - segments.tarStart[row]!;
  if (segments.kind[row] === SEGMENT.inline) return layer.tar.slice(start, end);
  if (segments.kind[row] === SEGMENT.held) return image.packs[source]!.slice(from, from + end - start);
  if (segments.kind[row] === SEGMENT.copy) {
    const bytes: number[] = [];
    eachSegmentIn(plan.layers[source]!.segments, from, from + end - start, (target, a, b) => {
      bytes.push(...segmentBytes(image, plan, source, target, a, b));
    });
    return bytes;
  }
  const span = plan.spans[source]!;
  assert.deepEqual(
    [span.layer, span.tarStart, span.tarEnd],
    [number, segments.tarStart[row], segments.tarStart[row + 1]],
  );
  return decode(layer, span).slice(from, from + end - start);
}

function decode(layer: RandomLayer, span: Span): number[] {
  const frames = layer.frames.filter(
    ({ blobStart, blobEnd }) => blobStart < span.blobEnd && blobEnd > span.blobStart,
  );
  assert.equal(frames[0]!.blobStart, span.blobStart);
  assert.equal(frames.at(-1)!.blobEnd, span.blobEnd);
  return frames.flatMap((frame) => layer.tar.slice(frame.tarStart, frame.tarEnd));
}

function knownBoundaries(layer: RandomLayer): Set<number> {
  return new Set([
    0,
    layer.want.table.dataEnd,
    ...layer.contents.flatMap(({ blob, chunks }) => [...blob, ...(chunks ?? []).map((c) => c.blobStart)]),
    ...layer.trueResumed.flatMap((piece) => [piece.blobStart, piece.blobEnd]),
  ]);
}

/** How each content comes: from a pack, from an earlier place, or not at all (then its chunks are looked at). */
function contentStates(image: RandomImage): ('held' | 'copy' | 'wanted')[][] {
  const firsts = new Map<string | number, boolean>();
  return image.layers.map(({ contents, want }) =>
    contents.map(({ name }, row) => {
      const held = want.heldPack[row]! >= 0;
      const first = firsts.get(name);
      if (first === undefined) firsts.set(name, held);
      if (held || first === true) return 'held';
      return first === undefined ? 'wanted' : 'copy';
    }),
  );
}

/** The parts of a content that are fetched or held as a whole: its chunks, else itself. */
function partsOf(layer: RandomLayer, row: number) {
  const content = layer.contents[row]!;
  const { want } = layer;
  const chunk = want.table.chunkFirst[row]!;
  const starts = content.chunks ?? [{ blobStart: content.blob[0], tarStart: content.tarStart }];
  return starts.map((start, i) => ({
    ...start,
    blobEnd: starts[i + 1]?.blobStart ?? content.blob[1],
    tarEnd: starts[i + 1]?.tarStart ?? content.tarStart + content.sizeBytes,
    held: content.chunks !== undefined && want.chunkHeldPack[chunk + i]! >= 0,
  }));
}

function marksOf(layer: RandomLayer, states: readonly string[]): Mark[] {
  const marks: Mark[] = new Array(layer.want.table.dataEnd).fill('other');
  for (const piece of layer.trueResumed) marks.fill('barrier', piece.blobStart, piece.blobEnd);
  for (const [row, state] of states.entries()) {
    for (const part of partsOf(layer, row)) {
      if (state !== 'wanted' || part.held) continue;
      const frames = layer.frames.filter(
        ({ blobStart }) => blobStart >= part.blobStart && blobStart < part.blobEnd,
      );
      // What resumed pieces leave of the part: wanted unless it decodes to nothing.
      for (let i = 0; i < frames.length; ) {
        let end = i;
        while (end < frames.length && marks[frames[end]!.blobStart] !== 'barrier') end++;
        const rest = frames.slice(i, end);
        if (rest.some((frame) => frame.tarEnd > frame.tarStart)) {
          marks.fill('wanted', rest[0]!.blobStart, rest.at(-1)!.blobEnd);
        }
        i = end + 1;
      }
    }
  }
  return marks;
}

/** Rule by rule and byte by byte: 1 for each fetched byte of each layer. */
function slowFetched(image: RandomImage, limits: PlanLimits): number[][] {
  const states = contentStates(image);
  const marks = image.layers.map((layer, number) => marksOf(layer, states[number]!));
  const distances = image.layers.flatMap((layer, number) =>
    sectionsOf(layer, marks[number]!).flatMap(([start, end]) => {
      const wanted = range(start, end).filter((at) => marks[number]![at] === 'wanted');
      if (wanted.length === 0) return [];
      return [start - 1, ...wanted].flatMap((at, i) => {
        const next = wanted[i] ?? end;
        return next - at > 1 ? [{ number, start: at + 1, end: next, bytes: next - at - 1 }] : [];
      });
    }),
  );
  const wantedBytes = marks.flat().filter((mark) => mark === 'wanted').length;
  const fetched = marks.map((layer) => layer.map((mark) => (mark === 'wanted' ? 1 : 0)));
  let extraBytes = 0;
  // sort() keeps the order of equal ones.
  for (const { number, start, end, bytes } of distances.sort((a, b) => a.bytes - b.bytes)) {
    if (bytes > limits.gapBytes) extraBytes += bytes;
    if (extraBytes > wantedBytes * limits.extraShare) break;
    fetched[number]!.fill(1, start, end);
  }
  return fetched;
}

/** The stretches of a blob that a span may run over without meeting a resumed piece or a hole. */
function sectionsOf(layer: RandomLayer, marks: readonly Mark[]): [number, number][] {
  const holes = new Set(
    layer.frames
      .slice(1)
      .filter((frame, i) => frame.tarStart > layer.frames[i]!.tarEnd)
      .map((f) => f.blobStart),
  );
  const sections: [number, number][] = [];
  let start = 0;
  for (let at = 0; at <= marks.length; at++) {
    if (at < marks.length && marks[at] !== 'barrier' && !holes.has(at)) continue;
    if (at > start) sections.push([start, at]);
    start = marks[at] === 'barrier' ? at + 1 : at;
  }
  return sections;
}

function recount(image: RandomImage, plan: PullPlan, number: number) {
  const layer = image.layers[number]!;
  const kinds: string[] = new Array(layer.tar.length).fill('inlineBytes');
  for (const [row, state] of contentStates(image)[number]!.entries()) {
    for (const part of partsOf(layer, row)) {
      const kind = state === 'copy' ? 'copiedBytes' : 'reusedBytes';
      kinds.fill(kind, part.tarStart, part.tarEnd);
    }
  }
  for (const { tarStart, lengthBytes } of layer.trueResumed) {
    kinds.fill('resumedBytes', tarStart, tarStart + lengthBytes);
  }
  let fetchBytes = 0;
  for (const span of plan.spans.filter((one) => one.layer === number)) {
    kinds.fill('decodedBytes', span.tarStart, span.tarEnd);
    fetchBytes += span.blobEnd - span.blobStart;
  }
  const count = (kind: string) => kinds.filter((one) => one === kind).length;
  return {
    fetchBytes,
    decodedBytes: count('decodedBytes'),
    reusedBytes: count('reusedBytes'),
    copiedBytes: count('copiedBytes'),
    resumedBytes: count('resumedBytes'),
    inlineBytes: count('inlineBytes'),
  };
}
