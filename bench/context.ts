import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { BenchOptions } from './options.js';
import type { Report } from './report.js';
import { rowNumber } from './rows.js';

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

/** Runs `action` with a store that is removed afterwards. */
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
