import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { DOUBTFUL_FOREIGN_SHARE } from '../src/measure/figures.js';
import { type Surroundings, watchMachine } from '../src/measure/machine.js';
import { medianOf } from '../src/measure/statistics.js';
import type { BenchOptions } from './options.js';
import type { Peer } from './peers.js';
import { type CommandRun, type PullJob, runPull } from './process.js';
import type { Report } from './report.js';
import { rowNumber } from './rows.js';
import type { Sample } from './sample.js';
import type { Server } from './server.js';

/** What every scenario gets. */
export interface Bench {
  readonly options: BenchOptions;
  readonly report: Report;
  /** A directory on the samples' disk, removed at the end. */
  readonly scratch: string;
}

let made = 0;

/** A path in the scratch directory that nobody used before. */
export function newPath({ scratch }: Bench): string {
  made += 1;
  return join(scratch, String(made));
}

/** Runs `action` with a path for a store or for other files, which is removed afterwards. */
export async function withStore<T>(bench: Bench, action: (store: string) => Promise<T>): Promise<T> {
  const store = newPath(bench);
  try {
    return await action(store);
  } finally {
    rmSync(store, { recursive: true, force: true });
  }
}

/** Whether a row (a number, without its letter) is to be measured. */
export function wants({ options: { only } }: Bench, ...numbers: readonly number[]): boolean {
  return only === undefined || numbers.some((number) => only.has(number));
}

/** Records a row if it was asked for: one scenario yields several. */
export function recordWanted(bench: Bench, id: string, runs: readonly number[], note = ''): void {
  if (wants(bench, rowNumber(id))) bench.report.record(id, { runs, note });
}

/** Yields the numbers of the runs, 1, 2, …, and reports each on stderr. */
export function* eachRun({ options: { runs } }: Bench, what: string): Generator<number> {
  for (let run = 1; run <= runs; run += 1) {
    process.stderr.write(`${what}, run ${run} of ${runs}\n`);
    yield run;
  }
}

/** A pull, and what else happened meanwhile. */
export interface ColdPull extends CommandRun, Pick<Surroundings, 'foreignShare'> {
  /** CPU seconds of the server. */
  readonly serverSeconds: number;
}

/** Pulls into a new store, which is removed afterwards. `cores`: as `runPull`. */
export function coldPull(
  bench: Bench,
  server: Server,
  { ref, ...settings }: Omit<PullJob, 'host' | 'store'>,
  cores?: string,
): Promise<ColdPull> {
  return withStore(bench, async (store) => {
    const before = await server.cpuSeconds();
    const watch = watchMachine(0);
    const run = await runPull({ ...settings, host: server.host, ref, store }, cores);
    const serverSeconds = (await server.cpuSeconds()) - before;
    const { foreignShare } = watch(run.cpuSeconds + serverSeconds);
    return { ...run, serverSeconds, foreignShare };
  });
}

/** Warns when other programs, the kernel's own threads among them, took much. `when`: what was measured meanwhile. */
export function warnOfOthers({ report }: Bench, pulls: readonly ColdPull[], when: string): void {
  const share = medianOf(pulls.map(({ foreignShare }) => foreignShare ?? 0));
  if (share <= DOUBTFUL_FOREIGN_SHARE) return;
  const percent = (share * 100).toFixed(0);
  report.warn(
    `${percent} % of the processor's work ${when} was that of other programs: wall times are doubtful`,
  );
}

/**
 * Measures zpull and each of these peers in turns, each time into a directory that is removed afterwards; the ratios,
 * recorded by the rows that the peers are under, are those of a turn. A peer that is not there is named in its row.
 */
export async function inTurns(
  bench: Bench,
  peers: Readonly<Record<string, Peer>>,
  { host, sample, note }: { readonly host: string; readonly sample: Sample; readonly note?: string },
  zpull: (directory: string) => Promise<number>,
): Promise<void> {
  const theirs = new Map<string, number[]>();
  for (const [id, { missing }] of Object.entries(peers)) {
    if (missing === undefined) theirs.set(id, []);
    else bench.report.skip(id, missing);
  }
  const ours: number[] = [];
  for (const _ of eachRun(bench, `zpull and rows ${Object.keys(peers).join(', ')}`)) {
    for (const [id, seconds] of theirs) {
      seconds.push(await withStore(bench, (directory) => peers[id]!.run(host, sample, directory)));
    }
    ours.push(await withStore(bench, zpull));
  }
  for (const [id, seconds] of theirs) {
    const ratios = ours.map((own, run) => own / seconds[run]!);
    const walls = `${medianOf(ours).toFixed(2)} / ${medianOf(seconds).toFixed(2)} s, ${peers[id]!.name}`;
    recordWanted(bench, id, ratios, note === undefined ? walls : `${note}: ${walls}`);
  }
}
