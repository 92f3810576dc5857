import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { planPull } from '../../../src/plan/plan.js';
import { planLimits } from '../../../src/plan/spans.js';
import type { FindDamageResult, Results, Task } from '../../../src/pool/messages.js';
import type { KnownLayer } from '../../../src/pull/layer.js';
import { runPlan } from '../../../src/pull/pull-layers.js';
import { noCachedContents } from '../../../src/store/cached-contents.js';
import type { PackId } from '../../../src/store/paths.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';
import { type ContentRow, tableOf, wantOf } from '../../support/layer-tables.js';

type Answer = Promise<Results[keyof Results]>;

const PACK = 'a'.repeat(32) as PackId;
const NEVER: Answer = new Promise(() => {});
const TAR_BYTES = 4096;

/** One to be fetched and, where the distance is large, one that a pack holds. */
const WANTED: ContentRow = { name: 'wanted', blob: [100, 300], tarStart: 512, sizeBytes: 100 };
const HELD: ContentRow = { name: 'held', blob: [90_000, 90_100], tarStart: 3072, sizeBytes: 100 };

function layerOf(): KnownLayer {
  const layer = fakeLayer();
  const table = tableOf([WANTED, HELD], 90_200, TAR_BYTES);
  return { ...layer, metadata: { ...layer.metadata, table } };
}

const BAD = new PullError('metadata-malformed', 'no good');
const LOST = new PullError('interrupted', 'the test is over');

/** Runs the plan of these layers, each with a content to be fetched, on threads that answer so until the pull stops. */
function run(layers: readonly KnownLayer[], answer: (task: Task) => Answer) {
  const pool = fakePool((task) => context.stop.guard(answer(task)));
  const { context, events } = fakeContext({ support: pool });
  const limits = planLimits(4);
  const wants = layers.map(({ metadata }) =>
    metadata === undefined ? wantOf(tableOf([], 0, 0)) : wantOf(metadata.table, { held: [1] }),
  );
  const opaque = layers.map(({ metadata, blob }) =>
    metadata === undefined ? { blobBytes: blob.sizeBytes, cached: [] } : undefined,
  );
  const plan = { limits, chunked: planPull(wants, limits), packs: [PACK], opaque };
  const running = runPlan({ ...context, startFetchers: async () => pool }, layers, plan, 1000);
  return { running, context, events };
}

/** As many turns of the event loop as all that can happen by itself may take. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
}

test('a layer that is pulled as an opaque one already does not fail by inline bytes that cannot be written', async () => {
  let failInline = (): void => {};
  const { running, context, events } = run([layerOf()], (task) => {
    if (task.task === 'fetch-span') return Promise.reject(BAD);
    if (task.task === 'look-up') return Promise.resolve({ packs: [], layers: [], opaque: [[]] });
    if (task.task !== 'write-inline') return NEVER;
    return new Promise((_, reject) => {
      failInline = () => reject(BAD);
    });
  });
  await settled();
  assert.deepEqual(
    events.map(({ event }) => event),
    ['warning'],
  );
  failInline();
  await settled();
  assert.equal(context.stop.reason, undefined);
  context.stop.now(LOST);
  await assert.rejects(running, LOST);
});

test('a wrong blob ends the pull although another layer could not be repaired meanwhile', async () => {
  const { metadata: _, ...stream } = layerOf();
  const damage: FindDamageResult = { contents: [0], chunks: [], tarRanges: new Float64Array(0) };
  const spans = { asked: 0 };
  let failRepair = (): void => {};
  let failStream = (): void => {};
  const { running } = run([layerOf(), stream], (task) => {
    switch (task.task) {
      case 'fetch-span': {
        spans.asked += 1;
        const goodTarBytes = task.tarEnd - task.tarStart;
        const result = { pack: PACK, packOffset: 0, goodTarBytes, fetchedBytes: 1, requests: 1 };
        if (spans.asked === 1) return Promise.resolve(result);
        return new Promise((_, reject) => {
          failRepair = () => reject(BAD);
        });
      }
      case 'write-inline':
        return Promise.resolve({ pack: PACK, packOffset: 0, lengthBytes: TAR_BYTES });
      case 'verify-layer':
        return Promise.resolve({ digest: null, isTagged: false });
      case 'find-damage':
        return Promise.resolve(damage);
      case 'list-cached':
        return Promise.resolve(noCachedContents());
      case 'decode-blob':
        return new Promise((_, reject) => {
          failStream = () => reject(BAD);
        });
      case 'look-up':
        return Promise.resolve({ packs: [], layers: [], opaque: [[]] });
      default:
        return NEVER;
    }
  });
  const ended = assert.rejects(running, { code: BAD.code });
  await settled();
  assert.equal(spans.asked, 2, 'the damaged content is fetched again');
  failStream();
  await settled();
  failRepair();
  await ended;
});

test('opaque layers are fetched before others, the largest first', async () => {
  const streams = [300, 500, 400].map((sizeBytes, number) => {
    const { metadata: _, ...layer } = fakeLayer(200, number + 1);
    return { ...layer, blob: { ...layer.blob, sizeBytes } };
  });
  const asked: number[] = [];
  const { running, context } = run([layerOf(), ...streams], (task) => {
    if (task.task === 'fetch-opaque' || task.task === 'fetch-span') asked.push(task.blob.sizeBytes);
    return NEVER;
  });
  await settled();
  assert.deepEqual(asked, [500, 400, 300, layerOf().blob.sizeBytes]);
  context.stop.now(LOST);
  await assert.rejects(running, LOST);
});
