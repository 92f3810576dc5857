import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PullPlan, planPull, SEGMENT, type Span } from '../../../src/plan/plan.js';
import type { PlanLimits } from '../../../src/plan/spans.js';
import { type Random, seededRandom } from '../../support/random.js';
import {
  assertSameBytes,
  type RandomImage,
  type RandomLayer,
  randomImage,
} from '../../support/random-image.js';
import { eachSegmentIn, knownBoundaries, recount, slowFetched } from '../../support/slow-plan.js';

const SEEDS = 2000;

test('every byte of every tar comes from its plan', () => {
  eachPlan((image, plan) => {
    for (const [number, layer] of image.layers.entries()) {
      const { segments } = plan.layers[number]!;
      assert.equal(segments.tarStart[0], 0);
      assert.equal(segments.tarStart[segments.count], layer.tar.length);
      for (let row = 0; row < segments.count; row++) {
        const [start, end] = [segments.tarStart[row]!, segments.tarStart[row + 1]!];
        assert.ok(start < end);
        assertSameBytes(segmentBytes(image, plan, number, row, start, end), layer.tar.slice(start, end));
      }
    }
  });
});

test('inline segments are never parts of a content, and no two of them are adjacent', () => {
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

test('copies point at an earlier offset that is not a copy', () => {
  eachPlan((_image, plan) => {
    for (const [number, { segments }] of plan.layers.entries()) {
      for (let row = 0; row < segments.count; row++) {
        if (segments.kind[row] !== SEGMENT.copy) continue;
        const [layer, from] = [segments.source[row]!, segments.sourceOffset[row]!];
        const bytes = segments.tarStart[row + 1]! - segments.tarStart[row]!;
        assert.ok(layer < number || (layer === number && from + bytes <= segments.tarStart[row]!));
        eachSegmentIn(plan.layers[layer]!.segments, from, from + bytes, (target) => {
          const kind = plan.layers[layer]!.segments.kind[target];
          assert.ok(kind === SEGMENT.span || kind === SEGMENT.cached);
        });
      }
    }
  });
});

test('the fetched bytes are those of a slow model of the gap rule, each once', () => {
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
          if (is !== should && !(empty && is < should))
            assert.fail(`layer ${number} byte ${at}: ${is}, not ${should}`);
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
      assert.ok(contentsIn(image.layers[span.layer]!, span).length <= 1);
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

test('the random images cover every case of the other tests', () => {
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
      const contents = contentsIn(image.layers[span.layer]!, span);
      see('span within a content', contents.length > 0 && contents[0]!.blob[0] < span.blobStart);
      see('span of many contents', contents.length > 3);
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
  const gapBytes = random.int(0, 40);
  return {
    connections: random.int(1, 8),
    gapBytes,
    extraShare: random.int(0, 60) / 100,
    tocOnlyExtraShare: random.int(0, 60) / 100,
    mostlyMissingShare: random.chance(0.3) ? 2 : random.int(0, 100) / 100,
    requestBytes: gapBytes + random.int(0, 100),
    minSpanBytes: random.int(1, 200),
    spanBlobBytes: random.int(20, random.chance(0.3) ? 200 : 2000),
    spanTarBytes: random.int(20, 3000),
  };
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
  assert.ok(segments.tarStart[row]! <= start && end <= segments.tarStart[row + 1]!);
  const layer = image.layers[number]!;
  const source = segments.source[row]!;
  const from = segments.sourceOffset[row]! + start - segments.tarStart[row]!;
  if (segments.kind[row] === SEGMENT.inline) return layer.tar.slice(start, end);
  if (segments.kind[row] === SEGMENT.cached) return image.packs[source]!.slice(from, from + end - start);
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

/** The contents that have bytes in a span. */
function contentsIn(layer: RandomLayer, { tarStart, tarEnd }: Span) {
  return layer.contents.filter((row) => row.tarStart < tarEnd && row.tarStart + row.sizeBytes > tarStart);
}
