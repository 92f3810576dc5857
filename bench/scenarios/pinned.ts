import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { medianOf } from '../../src/measure/statistics.js';
import {
  type Bench,
  type ColdPull,
  coldPull,
  eachRun,
  recordWanted,
  wants,
  warnOfOthers,
} from '../context.js';
import { type Sample, treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Row 3: client and server together on one core and on two, in turns. */
export async function pinned(bench: Bench): Promise<void> {
  if (!wants(bench, 3)) return;
  const missing = missingCores();
  if (missing !== undefined) return bench.report.skip('3', missing);
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const { one, two } = await onOneAndTwo(bench, sample);
  const ratios = one.map((run, i) => run.wallSeconds / two[i]!.wallSeconds);
  recordWanted(bench, '3', ratios, `${costs(one)} on one; ${costs(two)} on two`);
  warnOfOthers(bench, [...one, ...two], 'on one core and on two');
}

/** Why nothing can be measured on cores 0 and 1; undefined if it can. */
export function missingCores(): string | undefined {
  if (availableParallelism() < 2) return 'needs a second core';
  const canPin = spawnSync('taskset', ['-c', '0,1', process.execPath, '--version']).status === 0;
  return canPin ? undefined : 'needs taskset and cores 0 and 1';
}

/** Pulls on one core and on two, the server on the same ones, in turns. */
export async function onOneAndTwo(bench: Bench, sample: Sample): Promise<Record<'one' | 'two', ColdPull[]>> {
  const pullOn = (cores: string) =>
    withServer({ layout: sample.layoutDir }, (server) => coldPull(bench, server, sample, cores), cores);
  const [one, two]: [ColdPull[], ColdPull[]] = [[], []];
  for (const _ of eachRun(bench, 'one core and two')) {
    one.push(await pullOn('0'));
    two.push(await pullOn('0,1'));
  }
  return { one, two };
}

function costs(runs: readonly ColdPull[]): string {
  const wallSeconds = medianOf(runs.map((run) => run.wallSeconds));
  const cpuSeconds = medianOf(runs.map((run) => run.cpuSeconds));
  return `${wallSeconds.toFixed(2)} s, ${cpuSeconds.toFixed(2)} CPU s`;
}
