import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { MessageChannel } from 'node:worker_threads';
import { type Digest, parseDigest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import { CounterReader, createCounters, openPacksOf } from '../../../src/pool/shared-memory.js';
import {
  ENTRY,
  shareTasks,
  type TaskRunner,
  WorkerPool,
  workerEnvironment,
} from '../../../src/pool/worker-pool.js';
import { ExtentList } from '../../../src/store/extents.js';
import { openStore, type PackId } from '../../../src/store/paths.js';
import { heapUsedBytes } from '../../support/heap.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { writePack } from '../store/support.js';

const NOWHERE: Digest = parseDigest(`sha256:${'0'.repeat(64)}`, 'digest');
/** A task that only looks into the store, where nothing is. */
const QUICK = { task: 'name-content', toc: NOWHERE, tocUncompressedBytes: 1, content: 3 } as const;

function startPool(root: string): Promise<WorkerPool> {
  openStore(root);
  const setup = { storeRoot: root, counters: createCounters() };
  return WorkerPool.start({ threads: 1, tasksPerThread: 50, setup, onEvent: () => {} });
}

test('a task answers with its result, or fails with the code it failed with', async (t) => {
  const root = temporaryDirectory(t);
  const pool = await startPool(root);
  t.after(() => pool.destroy());
  assert.equal(await pool.run(QUICK), 'content 3');
  const gone = { packs: ['0'.repeat(32) as PackId], count: 1, pack: Uint32Array.of(0) };
  const extents = { ...gone, offset: Float64Array.of(0), start: Float64Array.of(0, 1) };
  const file = { fd: -1, path: join(root, 'layer.tar') };
  const failing = pool.run({ task: 'export-layer', extents, file, position: 0 });
  await assert.rejects(failing, (error) => error instanceof PullError && error.code === 'store-broken');
});

test('threads begin with a module that can be left in the middle of loading it', () => {
  // An ES module gives its namespace here, and aborts the process when its thread is ended meanwhile.
  assert.equal(typeof createRequire(import.meta.url)(fileURLToPath(ENTRY)), 'function');
});

test('all threads count the packs that they have open together', async (t) => {
  const paths = openStore(temporaryDirectory(t));
  const counters = createCounters();
  const setup = { storeRoot: paths.root, counters };
  const pool = await WorkerPool.start({ threads: 2, tasksPerThread: 1, setup, onEvent: () => {} });
  t.after(() => pool.destroy());
  const verified = new CounterReader(counters, 'verified');
  const layers = [1, 2].map(() => {
    const extents = new ExtentList();
    for (const text of ['a', 'b', 'c']) extents.push(writePack(paths, [Buffer.from(text)]).id, 0, 1);
    const { port1, port2 } = new MessageChannel();
    const hashed = pool.run({ task: 'verify-layer', diffId: NOWHERE, port: port2 }, [port2]);
    port1.postMessage(extents.toRows());
    return { port1, hashed };
  });
  while (verified.total() < 6) await nextTurn();
  assert.equal(openPacksOf(counters)[0], 6);
  for (const { port1, hashed } of layers) {
    port1.postMessage(null);
    await hashed;
    port1.close();
  }
  assert.equal(openPacksOf(counters)[0], 0);
});

test('answers that arrive while the pool is being destroyed fail their tasks and nothing else', async (t) => {
  const pool = await startPool(temporaryDirectory(t));
  await pool.run(QUICK);
  const runs = Array.from({ length: 40 }, () => pool.run(QUICK));
  const destroyed = runs[0]!.then(() => pool.destroy());
  // While this thread is busy all answers arrive: they wait in the port that is closed next.
  const until = performance.now() + 200;
  while (performance.now() < until);
  const outcomes = await Promise.allSettled(runs);
  await destroyed;
  await new Promise(setImmediate);
  assert.equal(outcomes[0]!.status, 'fulfilled');
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') assert.match(String(outcome.reason), /terminat/i);
  }
});

test('a destroyed pool starts nothing', async (t) => {
  const pool = await startPool(temporaryDirectory(t));
  await pool.destroy();
  await assert.rejects(pool.run(QUICK), /ended/);
});

test('tasks that are done leave nothing behind', async (t) => {
  const pool = await startPool(temporaryDirectory(t));
  t.after(() => pool.destroy());
  const pass = async (rounds: number) => {
    for (let i = 0; i < rounds; i++) await Promise.all(Array.from({ length: 50 }, () => pool.run(QUICK)));
  };
  await pass(20);
  const beforeBytes = heapUsedBytes();
  await pass(100);
  await nextTurn();
  const grownBytes = heapUsedBytes() - beforeBytes;
  assert.ok(grownBytes < 2 ** 21, `${grownBytes} bytes for 5000 tasks`);
});

test('pools that share tasks have as many of them for each thread, and a failed one is over', async () => {
  const ends: Array<() => void> = [];
  const taken: number[] = [];
  const poolOf = (row: number): TaskRunner => ({
    run: () =>
      new Promise<never>((_, reject) => {
        taken.push(row);
        ends.push(() => reject(new Error('over')));
      }),
  });
  const shared = shareTasks([
    { pool: poolOf(0), threads: 1 },
    { pool: poolOf(1), threads: 2 },
  ]);
  const running = Array.from({ length: 6 }, () => shared.run(QUICK));
  assert.deepEqual(taken, [0, 1, 1, 0, 1, 1]);
  ends[0]!();
  await assert.rejects(running[0]!);
  const more = shared.run(QUICK);
  assert.equal(taken.at(-1), 0);
  for (const end of ends) end();
  await Promise.allSettled([...running, more]);
});

test('threads see the environment without the variable that holds credentials', () => {
  const environment = { PATH: '/bin', DOCKER_AUTH_CONFIG: '{"auths":{}}' };
  assert.deepEqual(workerEnvironment(environment), { PATH: '/bin' });
});
