import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Long enough for a start-up of half a second to count as less than 3 %. */
const SECONDS = 20;

/** Row 18: how well --limit-rate is kept, all threads and connections together, start-up included. */
export async function limited(bench: Bench): Promise<void> {
  if (!wants(bench, 18)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  await withServer({ layout: layoutDir }, async ({ host }) => {
    const { result } = await withStore(bench, (store) => runPull({ host, ref, store }));
    const limitRate = Math.round(result.fetchedBytes / SECONDS);
    for (const _ of eachRun(bench, `--limit-rate ${limitRate}`)) {
      const run = await withStore(bench, (store) => runPull({ host, ref, store, limitRate }));
      ratios.push(((run.result.fetchedBytes / run.result.durationMs) * 1000) / limitRate);
    }
  });
  recordWanted(bench, '18', ratios);
}
