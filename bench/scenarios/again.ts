import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { runNode } from '../process.js';
import { type PullRun, runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';

/** A short process: several in a run cost little and steady the figure. */
const TIMES = 5;

/** Row 8: the same pull once more, and `node -e 0`, in turns. */
export async function again(bench: Bench): Promise<void> {
  if (!wants(bench, 8)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  const pulls: PullRun[] = [];
  const emptyMs: number[] = [];
  await withServer({ layout: layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref, store });
      for (const _ of eachRun(bench, 'the same pull again')) {
        for (let i = 0; i < TIMES; i += 1) {
          emptyMs.push((await runNode(['-e', '0'])).wallMs);
          pulls.push(await runPull({ host, ref, store }));
        }
        const last = pulls.slice(-TIMES).map(({ wallSeconds }) => wallSeconds * 1000);
        ratios.push(median(last) / median(emptyMs.slice(-TIMES)));
      }
    }),
  );
  recordWanted(bench, '8a', [Math.max(...pulls.map(({ result }) => result.fetchedBytes))]);
  const wallMs = median(pulls.map(({ wallSeconds }) => wallSeconds * 1000));
  recordWanted(bench, '8b', ratios, `${wallMs.toFixed(0)} / ${median(emptyMs).toFixed(0)} ms`);
}
