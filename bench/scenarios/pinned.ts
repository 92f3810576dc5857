import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';

/** Row 3: client and server together on one core and on two, in turns. */
export async function pinned(bench: Bench): Promise<void> {
  if (!wants(bench, 3)) return;
  if (availableParallelism() < 2) return bench.report.skip('3', 'needs a second core');
  if (spawnSync('taskset', ['-c', '0,1', process.execPath, '--version']).status !== 0) {
    return bench.report.skip('3', 'needs taskset and cores 0 and 1');
  }
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  const walls: Record<string, number[]> = { '0': [], '0,1': [] };
  for (const _ of eachRun(bench, 'one core and two')) {
    for (const [cores, seconds] of Object.entries(walls)) {
      await withServer(
        { layout: layoutDir },
        async ({ host }) => {
          const run = await withStore(bench, (store) => runPull({ host, ref, store }, cores));
          seconds.push(run.wallSeconds);
        },
        cores,
      );
    }
    ratios.push(walls['0']!.at(-1)! / walls['0,1']!.at(-1)!);
  }
  const [one, two] = Object.values(walls).map((seconds) => median(seconds).toFixed(2));
  recordWanted(bench, '3', ratios, `${one} s on one, ${two} s on two`);
}
