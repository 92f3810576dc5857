import { availableParallelism } from 'node:os';
import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { MachineLoad } from '../machine-load.js';
import { canPin } from '../process.js';
import { type PullRun, runPull } from '../pull-process.js';
import { type Sample, treeSample } from '../sample.js';
import { type Server, withServer } from '../server.js';
import { median } from '../statistics.js';

/** Row 3: client and server together on one core and on two, in turns. */
export async function pinned(bench: Bench): Promise<void> {
  if (!wants(bench, 3)) return;
  if (availableParallelism() < 2) return bench.report.skip('3', 'needs a second core');
  if (!canPin('0,1')) return bench.report.skip('3', 'needs taskset and cores 0 and 1');
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const runs: Readonly<Record<string, PullRun[]>> = { '0': [], '0,1': [] };
  const load = new MachineLoad();
  for (const _ of eachRun(bench, 'one core and two')) {
    for (const [cores, done] of Object.entries(runs)) {
      done.push(await pullOn(bench, { layoutDir, ref }, cores, load));
    }
  }
  const [one = [], two = []] = Object.values(runs);
  const ratios = one.map((run, i) => run.wallSeconds / two[i]!.wallSeconds);
  recordWanted(bench, '3', ratios, `${costs(one)} on one; ${costs(two)} on two`);
  load.warn(bench.report, 'on one core and on two');
}

/** A server and a pull on the same cores. */
function pullOn(
  bench: Bench,
  { layoutDir, ref }: Sample,
  cores: string,
  load: MachineLoad,
): Promise<PullRun> {
  const pullFrom = (server: Server) =>
    withStore(bench, async (store) => {
      const before = await server.cpuSeconds();
      load.start();
      const run = await runPull({ host: server.host, ref, store }, cores);
      load.stop(run.cpuSeconds + (await server.cpuSeconds()) - before);
      return run;
    });
  return withServer({ layout: layoutDir }, pullFrom, cores);
}

function costs(runs: readonly PullRun[]): string {
  const wallSeconds = median(runs.map((run) => run.wallSeconds));
  const cpuSeconds = median(runs.map((run) => run.cpuSeconds));
  return `${wallSeconds.toFixed(2)} s, ${cpuSeconds.toFixed(2)} CPU s`;
}
