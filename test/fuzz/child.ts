/**
 * The process that tries inputs, so that one that never ends, or ends the process, can be told. argv: a `ChildJob`. Each run
 * adds one to a count in the file `counter`, which the parent watches. Writes one JSON object a line on stdout.
 */
import { openSync, writeSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { Finding } from './target.js';
import { TARGETS } from './targets.js';

export interface ChildJob {
  /** Names of the targets; each has its turn, one after the other. */
  readonly targets: readonly string[];
  readonly seed: number;
  /** Inputs of one turn. */
  readonly runs: number;
  /** Rounds go on, with the next seed each, until this time is over; 0: one turn of each. */
  readonly limitMs: number;
  readonly counter: string;
  /** Says what number `show` of the first target's inputs is, and tries none. */
  readonly show?: number;
}

export type ChildLine =
  | { readonly turn: { readonly target: string; readonly seed: number } }
  | { readonly finding: Finding }
  | { readonly input: string };

const job = JSON.parse(process.argv[2] ?? '') as ChildJob;
const targets = TARGETS.filter(({ name }) => job.targets.includes(name));
const counter = openSync(job.counter, 'r+');
const count = Buffer.alloc(8);

function say(line: ChildLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

function note(runs: number): void {
  count.writeDoubleLE(runs);
  writeSync(counter, count, 0, count.length, 0);
}

async function searchAll(): Promise<void> {
  const endMs = performance.now() + job.limitMs;
  const isOver = () => job.limitMs > 0 && performance.now() >= endMs;
  for (let seed = job.seed; ; seed++) {
    for (const target of targets) {
      if (isOver()) return;
      let runs = 0;
      note(0);
      say({ turn: { target: target.name, seed } });
      const limit = job.limitMs > 0 ? { limitMs: Math.max(1, endMs - performance.now()) } : {};
      const onRun = () => note(++runs);
      const finding = await target.search({ seed, runs: job.runs, ...limit, onRun });
      if (finding !== undefined) say({ finding });
      if (finding !== undefined) return;
    }
    if (job.limitMs === 0) return;
  }
}

if (job.show === undefined) await searchAll();
else say({ input: await targets[0]!.input(job.seed, job.show) });
