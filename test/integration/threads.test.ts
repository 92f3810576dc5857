import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { pruneStore, removeImage } from '../../src/api/store.js';
import { usableCores } from '../../src/pool/cores.js';
import { storePaths } from '../../src/store/paths.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import type { StepEnd, ThreadJob } from '../support/thread-child.js';

const CHILD = join(import.meta.dirname, '../support/thread-child.js');
/** A process that has not ended by then never will. */
const LIMIT_MS = 90_000;
/** Those that Node and its libraries share; there are 15 on two cores. */
const MAX_THREADS_OF_NODE = 40;

const skip = process.platform === 'linux' ? false : 'counts threads in /proc';

/** How each step ends in a process that ends by itself; each must end with exit code 7. */
async function endsOf(job: ThreadJob): Promise<StepEnd[]> {
  const running = promisify(execFile)(process.execPath, [...process.execArgv, CHILD, JSON.stringify(job)], {
    timeout: LIMIT_MS,
  });
  const { stdout } = await running;
  const ends = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as StepEnd);
  assert.equal(ends.length, job.steps.length);
  for (const [i, { code, exitCode, message, threads }] of ends.entries()) {
    assert.deepEqual([code, exitCode], ['store-broken', 7], `${JSON.stringify(job.steps[i])}: ${message}`);
    assert.ok(threads < MAX_THREADS_OF_NODE, `${threads} threads are left`);
  }
  return ends;
}

test('a thread that cannot start ends a pull, an inspection or a copy with the limit that is too low', {
  skip,
}, async (t) => {
  const { host } = await startSandbox(t);
  const steps = [
    { use: 'pull', first: 1 },
    { use: 'pull', first: 2 },
    { use: 'pull', first: 3 }, // two support it, this one fetches
    { use: 'inspect' },
    { use: 'copy', first: 1 },
    { use: 'copy', first: 2 },
  ] as const;
  const store = join(temporaryDirectory(t), '{i}');
  const job = {
    image: `${host}/x:chunked-v1`,
    store,
    steps: steps.map((step) => ({ ...step, fault: 'refused' as const })),
  };
  for (const { message, hint } of await endsOf(job)) {
    assert.equal(
      message,
      'could not start a thread: the system allows no more processes and threads (EAGAIN)',
    );
    assert.match(hint, /ulimit -[uv]|pids\.max/);
  }
});

test('a thread that dies ends a pull and a copy, whatever it died of', { skip }, async (t) => {
  const { host } = await startSandbox(t, { latencyMs: 200 });
  const deaths = {
    memory: /^a thread ran out of memory \(ERR_WORKER_OUT_OF_MEMORY\)$/,
    exits: /^a worker thread died: it exited with code 3$/,
    throws: /^a worker thread died: a bug$/,
  };
  const faults = Object.keys(deaths) as Array<keyof typeof deaths>;
  const steps = faults.flatMap((fault) => [
    { use: 'pull' as const, first: 1, fault },
    { use: 'pull' as const, first: 3, fault },
    { use: 'copy' as const, fault },
  ]);
  const store = join(temporaryDirectory(t), '{i}');
  for (const [i, { message, hint }] of (
    await endsOf({ image: `${host}/x:chunked-v1`, store, steps })
  ).entries()) {
    assert.match(message, deaths[steps[i]!.fault]);
    assert.match(hint, /memory|--debug/);
  }
});

test('exports, verify and prune end in the same way', { skip }, async (t) => {
  const layout = emptyLayout(t);
  const [kept, gone] = [noise(1, 100_000), noise(2, 1_000_000)];
  await writeTars(t, layout, 'all', [tarOf({ kept, gone })]);
  await writeTars(t, layout, 'part', [tarOf({ kept })]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  for (const tag of ['all', 'part']) await pull(`${host}/x:${tag}`, { store });
  const ends = ['export-layers', 'export-tar', 'verify'] as const;
  await endsOf({
    image: '',
    store,
    steps: ends.flatMap((use) => [
      { use, fault: 'refused' as const },
      { use, fault: 'memory' as const },
    ]),
  });
  await removeImage({ store, image: `${host}/x:all` });
  await endsOf({
    image: '',
    store,
    steps: [
      { use: 'prune', fault: 'refused' },
      { use: 'prune', fault: 'exits at a task' },
    ],
  });
  assert.ok((await pruneStore({ store })).rewrittenPacks > 0, 'there was something to write anew');
});

test('where few threads are allowed libuv gets one, so that it does not abort the process', {
  skip: process.getuid?.() !== 0 && 'needs root, whom the limit does not hold',
}, () => {
  const bin = join(import.meta.dirname, '../../../bin/zpull.cjs');
  const script = `
    process.on('exit', () => console.log(process.env.UV_THREADPOOL_SIZE, process.env.TOKIO_WORKER_THREADS));
    require(${JSON.stringify(bin)});
  `;
  const { UV_THREADPOOL_SIZE: _, TOKIO_WORKER_THREADS: __, ...env } = process.env;
  const sizes = [12, 100_000].map((limit) => {
    // dash names it -p.
    const limited = `{ ulimit -p ${limit} || ulimit -u ${limit}; } 2>/dev/null; exec "$0" -e "$1" zpull --version`;
    const { stdout } = spawnSync('sh', ['-c', limited, process.execPath, script], { env, encoding: 'utf8' });
    return /^zpull .*\n(\d+) (\d+)\n$/.exec(stdout)?.slice(1).map(Number);
  });
  const cores = Math.max(1, usableCores());
  assert.deepEqual(sizes, [
    [1, 1],
    [cores + 4, 1],
  ]);
});

test('the support thread of a pull of chunked layers is among the first two that fetch', async (t) => {
  const layout = emptyLayout(t);
  const files = Object.fromEntries([1, 2, 3].map((seed) => [`file${seed}`, noise(seed, 3 * 2 ** 20)]));
  await writeTars(t, layout, 'one', [tarOf(files)]);
  const { host } = await startSandbox(t, { layout });
  let threads = 0;
  const count = () => {
    threads += 1;
  };
  process.on('worker', count);
  t.after(() => process.off('worker', count));
  for (const [workers, expected] of [
    [1, 1],
    [2, 2],
    [3, 4],
  ] as const) {
    threads = 0;
    const store = temporaryDirectory(t);
    await pull(`${host}/x:one`, { store, workers });
    assert.equal(threads, expected);
    const packs = readdirSync(storePaths(store).packs).filter((name) => name.endsWith('.pack'));
    assert.equal(packs.length, workers, 'each thread that fetches writes one');
  }
});
