import { type Bench, recordWanted, wants, withStore } from '../context.js';
import { readLayerTocs } from '../layer-toc.js';
import { runPull } from '../process.js';
import { type SampleFormat, treeSample } from '../sample.js';
import { withServer } from '../server.js';
import { leastBytes } from '../update-bytes.js';

/** Rows 6 and 16: version 2 onto a store that has version 1. Bytes repeat exactly: one run is enough. */
export async function update(bench: Bench): Promise<void> {
  if (wants(bench, 6)) await measure(bench, '6', 'zstd:chunked');
  if (!wants(bench, 16)) return;
  await measure(bench, '16a', 'zstd:chunked-old');
  await measure(bench, '16b', 'estargz');
}

async function measure(bench: Bench, id: string, format: SampleFormat): Promise<void> {
  const { workDir, files } = bench.options;
  const first = await treeSample(workDir, files, 1, format);
  const second = await treeSample(workDir, files, 2, format);
  const least = leastBytes(await readLayerTocs(first), await readLayerTocs(second), format);
  process.stderr.write(`update of ${format}\n`);
  await withServer({ layout: first.layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref: first.ref, store });
      const { result, wallSeconds, cpuSeconds } = await runPull({ host, ref: second.ref, store });
      const note = [
        `${(result.fetchedBytes / 1e6).toFixed(1)} of ${(least / 1e6).toFixed(1)} MB`,
        `${result.requests} requests`,
        `${wallSeconds.toFixed(2)} s, ${cpuSeconds.toFixed(2)} CPU s`,
      ].join(', ');
      recordWanted(bench, id, [result.fetchedBytes / least], note);
    }),
  );
}
