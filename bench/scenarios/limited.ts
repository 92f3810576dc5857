import { type Bench, coldPull, eachRun, recordWanted, wants } from '../context.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Long enough for a start-up of half a second to count as less than 3 %. */
const SECONDS = 20;

/** Row 18: how well --limit-rate is kept, all threads and connections together, start-up included. */
export async function limited(bench: Bench): Promise<void> {
  if (!wants(bench, 18)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  await withServer({ layout: sample.layoutDir }, async (server) => {
    const { result } = await coldPull(bench, server, sample);
    const limitRate = Math.round(result.fetchedBytes / SECONDS);
    for (const _ of eachRun(bench, `--limit-rate ${limitRate}`)) {
      const run = await coldPull(bench, server, { ...sample, limitRate });
      ratios.push(((run.result.fetchedBytes / run.result.durationMs) * 1000) / limitRate);
    }
  });
  recordWanted(bench, '18', ratios);
}
