import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { copyImage } from '../../src/api/copy.js';
import {
  type ExportEvent,
  exportDockerArchive,
  exportLayers,
  exportRootfs,
  exportTar,
} from '../../src/api/export.js';
import { inspectImage, type PullEvent, pullImage } from '../../src/api/pull.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { assertProven, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const THROWN = new Error('the callback of the user is broken');

/** A wait and a failure, which a pull goes on after. */
const FAULTS: readonly FaultRule[] = [
  { match: { path: '/manifests/', nth: 1 }, action: { retryAfter: { status: 429, seconds: 1 } } },
  { match: { path: LAYER_DIGEST, nth: 1 }, action: { closeAfterBytes: 10 } },
];

/** A callback that throws at each event of this kind, at once or by the promise that it returns. */
function throwingAt(name: string, isAsync: boolean) {
  const thrower = {
    count: 0,
    onEvent: ({ event }: PullEvent | ExportEvent): void | Promise<void> => {
      if (event !== name) return undefined;
      thrower.count += 1;
      if (isAsync) return Promise.reject(THROWN);
      throw THROWN;
    },
  };
  return thrower;
}

/** Fails unless what `run` begins ends with what its callback throws at this event, once. */
async function assertEndsWith(
  name: string,
  how: 'at once' | 'by a promise',
  run: (onEvent: (event: PullEvent | ExportEvent) => void) => Promise<unknown>,
): Promise<void> {
  const thrower = throwingAt(name, how === 'by a promise');
  await assert.rejects(run(thrower.onEvent), (error) => error === THROWN, `${name}, ${how}`);
  await nextTurn();
  assert.equal(thrower.count, 1, name);
}

const WAYS = ['at once', 'by a promise'] as const;

test('what a callback throws ends a pull and a copy, at whatever event', async (t: TestContext) => {
  const names = ['resolving', 'waiting', 'resolved', 'debug', 'planned', 'progress', 'layer', 'miss'];
  for (const [i, name] of names.entries()) {
    const isFaulty = name === 'waiting' || name === 'miss';
    const options = { debug: true, patienceMs: 60_000 };
    const imageOf = async () => {
      const { host } = await startSandbox(t, isFaulty ? { faults: FAULTS } : {});
      return `${host}/x:chunked-v1`;
    };
    const [how, otherwise] = i % 2 === 0 ? WAYS : WAYS.toReversed();
    await assertEndsWith(name, how!, async (onEvent) =>
      pullImage(await imageOf(), { ...options, store: temporaryDirectory(t), onEvent }),
    );
    const destination = { kind: 'layout', path: join(temporaryDirectory(t), 'layout') } as const;
    await assertEndsWith(name, otherwise!, async (onEvent) =>
      copyImage(await imageOf(), { ...options, destination, onEvent }),
    );
  }
});

test('an inspection and every export end with what their callback throws', async (t) => {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const store = temporaryDirectory(t);
  await assertEndsWith('resolved', 'at once', (onEvent) => inspectImage(image, { store, onEvent }));
  const { result } = await pull(image, { store });
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const { digest } = result;
  for (const name of ['exporting', 'written']) {
    const given = (onEvent: (event: ExportEvent) => void) => ({ store, diffIds, onEvent });
    const to = () => join(temporaryDirectory(t), 'to');
    await assertEndsWith(name, 'at once', (onEvent) => exportTar({ ...given(onEvent), file: to() }));
    await assertEndsWith(name, 'by a promise', (onEvent) =>
      exportLayers({ ...given(onEvent), directory: to() }),
    );
    await assertEndsWith(name, 'at once', (onEvent) => exportRootfs({ ...given(onEvent), directory: to() }));
    const archive = { store, digest, reference: image };
    await assertEndsWith(name, 'by a promise', (onEvent) =>
      exportDockerArchive({ ...archive, file: to(), onEvent }),
    );
  }
  assertProven(result);
});
