import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { FaultRule } from '../../src/sandbox/faults.js';
import {
  emptyLayout,
  metadataRanges,
  noise,
  readLayerMetadata,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { assertProven, failureOf, layerAsks, listedImages, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

interface Place {
  readonly start: number;
  readonly middle: number;
  readonly end: number;
}

/** An image of one layer with `count` contents, which one span covers, and where they lie in its blob. */
async function sample(t: TestContext, count: number, sizeBytes: number) {
  const layout = emptyLayout(t);
  const names = Array.from({ length: count }, (_, i) => `file${i}`);
  const files = Object.fromEntries(names.map((name, i) => [name, noise(i + 1, sizeBytes)]));
  await writeTars(t, layout, 'it', [tarOf(files)]);
  const layer = readManifest(layout, 'it').layers[0]!;
  const { toc } = await readLayerMetadata(layout, layer);
  const places = names.map((name): Place => {
    const { offset, endOffset } = toc.entries.find((entry) => entry.name === name)!;
    return { start: offset!, middle: Math.floor((offset! + endOffset!) / 2), end: endOffset! };
  });
  return { layout, path: layer.digest, places, end: metadataRanges(layer).toc[0] - 8 };
}

type Sample = Awaited<ReturnType<typeof sample>>;

/** The first answer to a request for the rest of the span from `start` on, or up to `end`, has a wrong byte. */
function wrongFrom(made: Sample, start: number, flipByteAt: number, end = made.end): FaultRule {
  return { match: { path: made.path, range: `${start}-${end - 1}`, nth: 1 }, action: { flipByteAt } };
}

async function pullWith(t: TestContext, made: Sample, faults: readonly FaultRule[], rate?: number) {
  const link = rate === undefined ? {} : { ratePerConnectionBytes: rate };
  const registry = await startSandbox(t, { layout: made.layout, faults, ...link });
  const store = temporaryDirectory(t);
  const ranges = () =>
    layerAsks(registry).flatMap(({ start, end }) => (end! <= made.end ? [[start!, end!]] : []));
  const starts = () => ranges().flatMap(([start, end]) => (end === made.end ? [start!] : []));
  return { pulling: pull(`${registry.host}/x:it`, { store, debug: true }), ranges, starts, store };
}

for (const [link, rate] of [
  ['a fast link', undefined],
  // Frames are decoded because they have waited long enough, and fail before more bytes come.
  ['400 kB/s a connection', 400_000],
] as const) {
  test(`a byte of a frame's magic number that is wrong once costs one more request, over ${link}`, async (t) => {
    const made = await sample(t, 6, 60_000);
    const { pulling, starts } = await pullWith(t, made, [wrongFrom(made, 0, made.places[3]!.start)], rate);
    const { result, events } = await pulling;
    assertProven(result);
    assert.equal(warnings(events).length, 1);
    assert.equal(result.misses, 0);
    // Everything before the content was right and is kept.
    assert.deepEqual(starts(), [0, made.places[3]!.start]);
    const lines = events.flatMap((event) => (event.event === 'debug' ? [event.line] : []));
    assert.ok(!lines.some((line) => line.endsWith('given up, as ')), lines.join('\n'));
  });

  test(`a byte of a content that is wrong once costs one more request, for that content, over ${link}`, async (t) => {
    const made = await sample(t, 6, 60_000);
    const { start, middle, end } = made.places[3]!;
    const { pulling, ranges } = await pullWith(t, made, [wrongFrom(made, 0, middle)], rate);
    const { result, events } = await pulling;
    assertProven(result);
    assert.match(warnings(events).join(), /^1 content of layer [^;]*; fetching it again$/);
    assert.equal(result.misses, 0);
    assert.deepEqual(ranges(), [
      [0, made.end],
      [start, end],
    ]);
  });
}

test('two offsets of one span that are wrong once each are both fetched again', async (t) => {
  const made = await sample(t, 6, 30_000);
  const [, one, , other] = made.places as [Place, Place, Place, Place];
  for (const [first, second] of [
    [one.start, other.start],
    // One that is known to be right, but for the mark of its first frame.
    [other.start, one.start],
  ] as const) {
    const again = first;
    const faults = [wrongFrom(made, 0, first), wrongFrom(made, again, second)];
    const { pulling, starts } = await pullWith(t, made, faults);
    const { result, events } = await pulling;
    assertProven(result);
    assert.equal(warnings(events).length, starts().length - 1);
    assert.deepEqual(starts().slice(0, 2), [0, again]);
  }
});

test('a content that is wrong, and then cannot be decoded, is requested a third time', async (t) => {
  const made = await sample(t, 3, 30_000);
  const { start, middle, end } = made.places[1]!;
  const faults = [wrongFrom(made, 0, middle), wrongFrom(made, start, start, end)];
  const { pulling, ranges } = await pullWith(t, made, faults);
  const { result, events } = await pulling;
  assertProven(result);
  assert.equal(warnings(events).length, 2);
  assert.deepEqual(ranges(), [
    [0, made.end],
    [start, end],
    [start, end],
  ]);
});

test('an offset that is wrong twice is not requested a third time: the layer is pulled as an opaque one', async (t) => {
  const made = await sample(t, 6, 30_000);
  const { start, middle, end } = made.places[2]!;
  for (const [at, againUpTo, says] of [
    [middle, end, /file2 does not match its digest.*twice.*full layer/],
    [start, made.end, /no zstd frame begins.*twice.*full layer/],
  ] as const) {
    const faults = [wrongFrom(made, 0, at), wrongFrom(made, start, at, againUpTo)];
    const { pulling, ranges } = await pullWith(t, made, faults);
    const { result, events } = await pulling;
    assertProven(result);
    assert.match(warnings(events).at(-1)!, says);
    const asked = ranges().filter(([from, to]) => to === made.end || from === start);
    assert.deepEqual(asked, [
      [0, made.end],
      [start, againUpTo],
    ]);
  }
});

test('an offset that is always wrong ends the pull with an error that names the content', async (t) => {
  const made = await sample(t, 6, 30_000);
  const flipByteAt = made.places[2]!.middle;
  const { pulling, store } = await pullWith(t, made, [
    { match: { path: made.path }, action: { flipByteAt } },
  ]);
  const error = await failureOf(pulling);
  assert.deepEqual([error.code, error.layer], ['digest-mismatch', made.path]);
  assert.match(error.message, /file2 does not match its digest.*twice/);
  assert.deepEqual(listedImages(store), []);
});

test('eight offsets of one span may be wrong once each, nine are too many', async (t) => {
  const made = await sample(t, 10, 2000);
  const asked = [0, ...made.places.slice(0, 8).map(({ start }) => start)];
  const faults = asked.map((start, i) => wrongFrom(made, start, made.places[i]!.start));
  const eight = await pullWith(t, made, faults.slice(0, 8));
  const { result, events } = await eight.pulling;
  assertProven(result);
  assert.equal(warnings(events).length, 8);
  assert.deepEqual(eight.starts(), asked);
  const nine = await pullWith(t, made, faults);
  assert.match(warnings((await nine.pulling).events).at(-1)!, /full layer/);
  assert.deepEqual(nine.starts(), asked);
});
