/** Measures what parts of a pull can be shared by cores, and prints where the model of docs/scaling.md has it stop getting faster. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { PullResult } from '../src/api/pull.js';
import { runCommand } from '../src/measure/command.js';
import { medianOf } from '../src/measure/statistics.js';
import { parseOptions } from './options.js';
import { blobBytes, pullWords, stop, ZPULL } from './process.js';
import { oneLayerSample, type Sample, type SampleFormat } from './sample.js';
import { type Machine, predict, type Shares } from './scaling-model.js';
import { withServer } from './server.js';

const CORES = [1, 2, 4, 8, 16, 32];
const LAYERS = [1, 10];
const FORMATS: readonly SampleFormat[] = ['zstd:chunked', 'gzip'];

/** Enough that no thread that shares its work is as busy as one that cannot. */
const WORKERS = 8;

const SAMPLE_MS = 20;
const GBIT_BYTES = 1e9 / 8;
const NETWORKS: ReadonlyArray<readonly [string, number]> = [
  ['1 Gbit/s', GBIT_BYTES],
  ['10 Gbit/s', 10 * GBIT_BYTES],
  ['none', Number.POSITIVE_INFINITY],
];

/** The kernel counts the time of threads in hundredths of a second (USER_HZ). */
const TICKS_PER_SECOND = 100;

if (process.platform !== 'linux')
  throw new Error('the times of single threads are read from /proc, which only Linux has');
const options = parseOptions(process.argv.slice(2));
if (options === undefined) throw new Error('takes --runs, --files and --work');
const { runs, files, workDir } = options;
mkdirSync(workDir, { recursive: true });
for (const format of FORMATS) {
  const sample = await oneLayerSample(workDir, files, format);
  const measured = await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    const all: Shares[] = [];
    for (let run = 1; run <= runs; run++) {
      process.stderr.write(`${format}, run ${run} of ${runs}\n`);
      all.push(await measure(sample, host));
    }
    return all;
  });
  const middle = (of: (shares: (typeof measured)[number]) => number) => medianOf(measured.map(of));
  const shares = {
    startSeconds: middle(({ startSeconds }) => startSeconds),
    allSeconds: middle(({ allSeconds }) => allSeconds),
    mainSeconds: middle(({ mainSeconds }) => mainSeconds),
    layerSeconds: middle(({ layerSeconds }) => layerSeconds),
    blobBytes: middle(({ blobBytes }) => blobBytes),
  };
  process.stdout.write(`${describe(format, shares)}\n${tableOf(shares)}\n\n`);
}

/** CPU seconds of each thread of a process so far, by thread. */
function threadSeconds(pid: number): Map<number, number> {
  const seconds = new Map<number, number>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    // The name, in parentheses, may have spaces: the fields are counted from behind it (proc_pid_stat(5), utime and stime).
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    seconds.set(Number(thread), (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND);
  }
  return seconds;
}

/** Pulls once, and looks at the threads until they end. With one thread in libuv's pool, that is the one that inflates a stream. */
async function measure(sample: Sample, host: string): Promise<Shares> {
  const store = mkdtempSync(join(workDir, 'scaling-'));
  const job = { host, ref: sample.ref, store, workers: WORKERS };
  const last = new Map<number, number>();
  let pid = 0;
  let before: ReadonlyMap<number, number> | undefined;
  const timer = setInterval(() => {
    try {
      for (const [thread, seconds] of threadSeconds(pid)) last.set(thread, seconds);
    } catch {
      // A thread has ended between the two looks, or the process, or it has not begun.
    }
  }, SAMPLE_MS);
  try {
    const { result } = await runCommand([ZPULL, ...pullWords(job), '--json', '--progress', 'json'], {
      signal: stop.signal,
      env: { UV_THREADPOOL_SIZE: '1' },
      onStart: (number) => {
        pid = number;
      },
      onEvent: ({ event }) => {
        if (event === 'planned') before ??= threadSeconds(pid);
      },
    });
    const atPlan = before ?? new Map<number, number>();
    const costs = Array.from(last, ([thread, seconds]) => ({
      isMain: thread === pid,
      seconds: seconds - (atPlan.get(thread) ?? 0),
    }));
    return {
      startSeconds: sum([...atPlan.values()]),
      allSeconds: sum(costs.map(({ seconds }) => seconds)),
      mainSeconds: sum(costs.filter(({ isMain }) => isMain).map(({ seconds }) => seconds)),
      layerSeconds: Math.max(...costs.filter(({ isMain }) => !isMain).map(({ seconds }) => seconds)),
      blobBytes: blobBytes(result as PullResult),
    };
  } finally {
    clearInterval(timer);
    rmSync(store, { recursive: true, force: true });
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function describe(format: SampleFormat, shares: Shares): string {
  const { startSeconds, allSeconds, mainSeconds, layerSeconds, blobBytes } = shares;
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  return `${format}, ${(blobBytes / 1e6).toFixed(0)} MB: CPU time until the plan ${seconds(startSeconds)}; after it ${seconds(allSeconds)} of all threads, ${seconds(layerSeconds)} of the busiest thread of a layer, ${seconds(mainSeconds)} of the main thread`;
}

/** A Markdown table: a row for each number of layers and network, a column for each number of cores. */
function tableOf(shares: Shares): string {
  const cell = (layers: number, machine: Machine) => {
    const { seconds, limit } = predict(shares, layers, machine);
    return `${seconds.toFixed(1)} s, ${limit}`;
  };
  const rows = LAYERS.flatMap((layers) =>
    NETWORKS.map(([name, bytesPerSecond]) => {
      const cells = CORES.map((cores) => cell(layers, { cores, bytesPerSecond }));
      return `| ${layers} | ${name} | ${cells.join(' | ')} |`;
    }),
  );
  const head = `| layers | limit of the network | ${CORES.map((cores) => `${cores} core${cores === 1 ? '' : 's'}`).join(' | ')} |`;
  return [head, `|${'---|'.repeat(CORES.length + 2)}`, ...rows].join('\n');
}
