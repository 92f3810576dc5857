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
    return { start: offset!, middle: Math.floor((offset! + endOffset!) / 2) };
  });
  return { layout, path: layer.digest, places, end: metadataRanges(layer).toc[0] - 8 };
}

type Sample = Awaited<ReturnType<typeof sample>>;

/** The first answer to a request for the rest of the span from `start` on has a wrong byte. */
function wrongFrom({ path, end }: Sample, start: number, flipByteAt: number): FaultRule {
  return { match: { path, range: `${start}-${end - 1}`, nth: 1 }, action: { flipByteAt } };
}

async function pullWith(t: TestContext, made: Sample, faults: readonly FaultRule[], rate?: number) {
  const link = rate === undefined ? {} : { ratePerConnectionBytes: rate };
  const registry = await startSandbox(t, { layout: made.layout, faults, ...link });
  const store = temporaryDirectory(t);
  const starts = () => layerAsks(registry).flatMap(({ start, end }) => (end === made.end ? [start!] : []));
  return { pulling: pull(`${registry.host}/x:it`, { store, debug: true }), starts, store };
}

for (const [link, rate] of [
  ['a fast link', undefined],
  // Frames are decoded because they have waited long enough, and fail before more bytes come.
  ['400 kB/s a connection', 400_000],
] as const) {
  for (const [what, placeOf] of [
    ['in a content', ({ middle }: Place) => middle],
    ['in the mark that a frame begins with', ({ start }: Place) => start],
  ] as const) {
    test(`a byte ${what} that comes wrong once costs one more request, over ${link}`, async (t) => {
      const made = await sample(t, 6, 60_000);
      const { pulling, starts } = await pullWith(
        t,
        made,
        [wrongFrom(made, 0, placeOf(made.places[3]!))],
        rate,
      );
      const { result, events } = await pulling;
      await assertProven(result);
      assert.equal(warnings(events).length, 1);
      assert.equal(result.misses, 0);
      // Everything before the content was right and is kept.
      assert.deepEqual(starts(), [0, made.places[3]!.start]);
      const lines = events.flatMap((event) => (event.event === 'debug' ? [event.line] : []));
      assert.ok(!lines.some((line) => line.endsWith('given up, as ')), lines.join('\n'));
    });
  }
}

test('two places of one span that come wrong once each, in different ways, are both fetched again', async (t) => {
  const made = await sample(t, 6, 30_000);
  const [, one, , other] = made.places as [Place, Place, Place, Place];
  for (const [first, second] of [
    [one.middle, other.start],
    [one.middle, other.middle],
    // The first content again, at another place than the one that is known.
    [other.middle, one.middle],
  ] as const) {
    const again = first === one.middle ? one.start : other.start;
    const faults = [wrongFrom(made, 0, first), wrongFrom(made, again, second)];
    const { pulling, starts } = await pullWith(t, made, faults);
    const { result, events } = await pulling;
    await assertProven(result);
    assert.equal(warnings(events).length, starts().length - 1);
    assert.deepEqual(starts().slice(0, 2), [0, again]);
  }
});

test('the same place wrong twice is asked for no third time: the layer is pulled as a whole', async (t) => {
  const made = await sample(t, 6, 30_000);
  const { start, middle } = made.places[2]!;
  for (const [at, says] of [
    [middle, /file2 does not match its digest.*twice.*as a whole/],
    [start, /no zstd frame begins.*twice.*as a whole/],
  ] as const) {
    const { pulling, starts } = await pullWith(t, made, [wrongFrom(made, 0, at), wrongFrom(made, start, at)]);
    const { result, events } = await pulling;
    await assertProven(result);
    assert.match(warnings(events).at(-1)!, says);
    assert.deepEqual(starts(), [0, start]);
  }
});

test('a place that is always wrong ends the pull, naming the content', async (t) => {
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

test('eight places of one span may come wrong once each, nine are too many', async (t) => {
  const made = await sample(t, 10, 2000);
  const asked = [0, ...made.places.slice(0, 8).map(({ start }) => start)];
  const faults = asked.map((start, i) => wrongFrom(made, start, made.places[i]!.middle));
  const eight = await pullWith(t, made, faults.slice(0, 8));
  const { result, events } = await eight.pulling;
  await assertProven(result);
  assert.equal(warnings(events).length, 8);
  assert.deepEqual(eight.starts(), asked);
  const nine = await pullWith(t, made, faults);
  assert.match(warnings((await nine.pulling).events).at(-1)!, /as a whole/);
  assert.deepEqual(nine.starts(), asked);
});
