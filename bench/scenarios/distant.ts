import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

const LATENCY_MS = 50;
const RATE_BYTES = 20e6;

/** Row 12: a registry as far and as fast as one across a country. */
export async function distant(bench: Bench): Promise<void> {
  if (!wants(bench, 12)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const shaped = { layout: layoutDir, latencyMs: LATENCY_MS, ratePerConnectionBytes: RATE_BYTES };
  const seconds: number[] = [];
  await withServer(shaped, async ({ host }) => {
    for (const _ of eachRun(bench, '50 ms and 20 MB/s a connection')) {
      const run = await withStore(bench, (store) => runPull({ host, ref, store }));
      seconds.push(run.wallSeconds);
    }
  });
  recordWanted(bench, '12', seconds);
}
