import { type Bench, coldPull, eachRun, recordWanted, wants } from '../context.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

const LATENCY_MS = 50;
const RATE_BYTES = 20e6;

/** Row 12: a registry as far and as fast as one across a country. */
export async function distant(bench: Bench): Promise<void> {
  if (!wants(bench, 12)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const shaped = { layout: sample.layoutDir, latencyMs: LATENCY_MS, ratePerConnectionBytes: RATE_BYTES };
  const seconds: number[] = [];
  await withServer(shaped, async (server) => {
    for (const _ of eachRun(bench, '50 ms and 20 MB/s a connection')) {
      seconds.push((await coldPull(bench, server, sample)).wallSeconds);
    }
  });
  recordWanted(bench, '12', seconds);
}
