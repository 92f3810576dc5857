import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { PullEvent } from '../../src/api/pull.js';
import { listLayerFiles, readLayerRecord } from '../../src/store/layer-record.js';
import { Lease } from '../../src/store/leases.js';
import { storePaths } from '../../src/store/paths.js';
import { startPullingChild } from '../support/child.js';
import { buryLeases } from '../support/crash.js';
import { keptSample } from '../support/layers/sample-image.js';
import { addLayer, emptyLayout, nameImage, noise, tarOf } from '../support/layout.js';
import { assertWhole, layerAsks, listedImages, onlyEvent, pull } from '../support/pull.js';
import { seeded } from '../support/random.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const MIB = 2 ** 20;

/** 75 MB of tar in four layers. */
const TREE = { seed: 20, fileCount: 1250, layerShares: [50, 30, 15, 5], version: 1 } as const;

/** What a killed process may lose of an image: what its connections had received and not yet decoded. */
const LOST_SHARE = 0.06;

/** On a slow link no more than two seconds of it. */
const LOST_SECONDS = 2;

/** What one process came to before it was killed. */
interface Killed {
  /** Bytes it had planned to receive. */
  readonly plannedBytes: number;
  /** Bytes it is known to have received. */
  readonly receivedBytes: number;
}

/** Pulls in a process that is killed once it says that it received so many bytes. */
async function pullAndKill(t: TestContext, image: string, store: string, atBytes: number): Promise<Killed> {
  const child = startPullingChild(t, { image, options: { store } }, (line, process) => {
    if (line.event === 'progress' && line.receivedBytes >= atBytes) process.kill('SIGKILL');
  });
  assert.equal(await child.gone, 'SIGKILL', 'it ended before it was killed');
  buryLeases(store);
  const events = child.lines.filter((line): line is PullEvent => line.event !== undefined);
  const progress = events.flatMap((event) => (event.event === 'progress' ? [event.receivedBytes] : []));
  return {
    plannedBytes: onlyEvent({ events }, 'planned').totalBytes,
    receivedBytes: Math.max(...progress),
  };
}

test('five kills in a row in one store cost little, and the result is right', async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e6));
  t.diagnostic(`SEED=${seed}`);
  const random = seeded(seed);
  const { layout, sample } = await keptSample(TREE);
  const slow = await startSandbox(t, { layout, rateBytes: 10e6 });
  const store = temporaryDirectory(t);
  const kills: Killed[] = [];
  for (let kill = 0; kill < 5; kill++) {
    const atBytes = Math.floor(sample.blobBytes * (0.03 + 0.1 * random()));
    kills.push(await pullAndKill(t, `${slow.host}/x:sample`, store, atBytes));
    assert.deepEqual(listedImages(store), []);
  }
  const fast = await startSandbox(t, { layout });
  const last = await pull(`${fast.host}/x:sample`, { store });
  assert.equal(assertWhole(store), TREE.layerShares.length);
  const planned = [...kills.map(({ plannedBytes }) => plannedBytes), onlyEvent(last, 'planned').totalBytes];
  for (const [i, { receivedBytes }] of kills.entries()) {
    const lost = receivedBytes + planned[i + 1]! - planned[i]!;
    const share = lost / sample.blobBytes;
    t.diagnostic(`kill ${i + 1}: ${receivedBytes} received, ${(share * 100).toFixed(2)} % lost`);
    assert.ok(share <= LOST_SHARE, `seed ${seed}, kill ${i + 1}: ${lost} bytes lost`);
  }
  assert.equal(last.result.fetchedBytes, planned.at(-1));
  assert.ok(last.result.resumedBytes > 0);
  assert.ok(layerAsks(fast).length > 0);
});

test('a kill on a slow link costs at most two seconds of transfer', async (t) => {
  const rateBytes = 2e6;
  const { layout } = await keptSample(TREE);
  const slow = await startSandbox(t, { layout, rateBytes });
  const store = temporaryDirectory(t);
  const killed = await pullAndKill(t, `${slow.host}/x:sample`, store, 1.5 * LOST_SECONDS * rateBytes);
  const fast = await startSandbox(t, { layout });
  const last = await pull(`${fast.host}/x:sample`, { store });
  assert.equal(assertWhole(store), TREE.layerShares.length);
  const lost = killed.receivedBytes + onlyEvent(last, 'planned').totalBytes - killed.plannedBytes;
  t.diagnostic(`${killed.receivedBytes} received, ${lost} lost`);
  assert.ok(lost <= LOST_SECONDS * rateBytes, `${lost} bytes`);
});

/** Packs of a store that no layer record names. */
function unnamedPacks(store: string): string[] {
  const paths = storePaths(store);
  const named = new Set<string>(
    listLayerFiles(paths).flatMap(({ diffId }) => readLayerRecord(paths, diffId)?.extents.packs ?? []),
  );
  return readdirSync(paths.packs).filter((name) => !named.has(name.slice(0, name.indexOf('.'))));
}

test('decoded bytes of a killed pull of a gzip layer are deleted by the next pull, unless the store is in use', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ first: noise(1, 3 * MIB), second: noise(2, 3 * MIB) });
  nameImage(layout, 'x', [await addLayer(layout, tar, '+gzip')], [digestOf(tar)]);
  const slow = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const fast = await startSandbox(t, { layout });
  for (const isInUse of [false, true]) {
    const store = temporaryDirectory(t);
    const child = startPullingChild(t, { image: `${slow.host}/x:x`, options: { store } }, (line, process) => {
      if (line.event === 'progress' && line.writtenBytes > MIB) process.kill('SIGKILL');
    });
    assert.equal(await child.gone, 'SIGKILL');
    buryLeases(store);
    const left = unnamedPacks(store);
    assert.ok(left.length >= 4, `raw packs and a decoded one: ${left}`);
    const lease = isInUse ? new Lease(storePaths(store), 'export') : undefined;
    const { result } = await pull(`${fast.host}/x:x`, { store });
    lease?.close();
    assert.ok(result.resumedBytes >= MIB, 'what was received is used');
    assert.equal(assertWhole(store), 1);
    if (isInUse) assert.ok(unnamedPacks(store).length > 0, 'it may be of use to the other process');
    else assert.deepEqual(unnamedPacks(store), []);
  }
});
