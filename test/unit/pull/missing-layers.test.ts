import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Digest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import type { WantedLayer } from '../../../src/pull/layer.js';
import { pullMissing } from '../../../src/pull/missing-layers.js';
import { Stop } from '../../../src/pull/stop.js';
import { LayerLocks } from '../../../src/store/layer-locks.js';
import { Lease } from '../../../src/store/leases.js';
import { fakeLayer } from '../../support/fake-context.js';
import { failureOf } from '../../support/pull.js';
import { digestOf, freshStore } from '../store/support.js';

const FIGURES = {
  format: 'tar' as const,
  tarBytes: 1,
  metadataBytes: 0,
  fetchedBytes: 1,
  reusedBytes: 0,
  resumedBytes: 0,
  requests: 1,
};

/** A store in which layers appear when they are pulled or when `have` says so, and another process with locks of its own. */
function scene(t: TestContext, names: readonly string[]) {
  const paths = freshStore(t);
  const leases = [new Lease(paths, 'pull'), new Lease(paths, 'pull')] as const;
  t.after(() => {
    for (const lease of leases) lease.close();
  });
  const [locks, others] = leases.map((lease) => new LayerLocks(paths, lease)) as [LayerLocks, LayerLocks];
  const held = new Set<Digest>();
  const pulled: string[][] = [];
  const diffIds = new Map(names.map((name) => [digestOf(name), name]));
  const stop = new Stop();
  const run = (more: { keep?: boolean; onWait?: (layers: number) => void } = {}) =>
    pullMissing({
      locks,
      stop,
      missing: async () =>
        [...diffIds.keys()]
          .filter((diffId) => !held.has(diffId))
          .map((diffId): WantedLayer => ({ ...fakeLayer(), diffId })),
      pull: async (layers) => {
        pulled.push(layers.map(({ diffId }) => diffIds.get(diffId)!));
        if (more.keep !== false) for (const { diffId } of layers) held.add(diffId);
        return { figures: layers.map(() => FIGURES), provenAfterMs: 1 };
      },
      onWait: more.onWait ?? (() => assert.fail('nothing to wait for')),
    });
  return { run, others, locks, pulled, held, stop };
}

test('what nobody else pulls is pulled at once, and no lock stays', async (t) => {
  const { run, others, pulled } = scene(t, ['a', 'b']);
  const { figures, provenAfterMs } = await run();
  assert.deepEqual([pulled, figures.size, provenAfterMs], [[['a', 'b']], 2, 1]);
  assert.deepEqual([others.tryLock(digestOf('a')), others.tryLock(digestOf('b'))], [true, true]);
});

test('what another process pulls comes last, and is used when it is there', async (t) => {
  const { run, others, pulled, held } = scene(t, ['a', 'b', 'c']);
  others.tryLock(digestOf('b'));
  const { figures } = await run({
    onWait: (layers) => {
      assert.deepEqual([layers, pulled], [1, [['a', 'c']]]);
      held.add(digestOf('b'));
      others.releaseAll();
    },
  });
  assert.deepEqual([pulled, figures.size], [[['a', 'c']], 2]);
});

test('what another process gave up is pulled here', async (t) => {
  const { run, others, pulled } = scene(t, ['a', 'b']);
  for (const name of ['a', 'b']) others.tryLock(digestOf(name));
  const left = ['b', 'a'];
  await run({ onWait: () => others.release(digestOf(left.shift()!)) });
  assert.deepEqual(pulled, [['b'], ['a']]);
});

test('a layer that goes again and again is pulled twice and no more', async (t) => {
  const { run, pulled } = scene(t, ['a']);
  await run({ keep: false });
  assert.deepEqual(pulled, [['a'], ['a']]);
});

test('a stop ends the wait', async (t) => {
  const { run, others, pulled, stop } = scene(t, ['a']);
  others.tryLock(digestOf('a'));
  const reason = new PullError('interrupted', 'stopped');
  assert.equal(await failureOf(run({ onWait: () => setTimeout(() => stop.now(reason)) })), reason);
  assert.deepEqual(pulled, []);
});

test('a layer that another process published just before its lock was ours is not pulled', async (t) => {
  const { run, locks, pulled, held } = scene(t, ['a']);
  t.mock.method(locks, 'tryLock', (diffId: Digest) => {
    held.add(diffId);
    return true;
  });
  const { figures } = await run();
  assert.deepEqual([pulled, figures.size], [[], 0]);
});
