import { medianOf } from '../../src/measure/statistics.js';
import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { type CommandRun, runNode, runPull } from '../process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** A short process: several in a run cost little and steady the figure. */
const TIMES = 5;

/** Row 8: the same pull once more, and `node -e 0`, in turns. */
export async function again(bench: Bench): Promise<void> {
  if (!wants(bench, 8)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  const pulls: CommandRun[] = [];
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
        ratios.push(medianOf(last) / medianOf(emptyMs.slice(-TIMES)));
      }
    }),
  );
  recordWanted(bench, '8a', [Math.max(...pulls.map(({ result }) => result.fetchedBytes))]);
  const wallMs = medianOf(pulls.map(({ wallSeconds }) => wallSeconds * 1000));
  recordWanted(bench, '8b', ratios, `${wallMs.toFixed(0)} / ${medianOf(emptyMs).toFixed(0)} ms`);
}
