import { type Bench, type ColdPull, coldPull, eachRun, recordWanted, wants } from '../context.js';
import { readLayers } from '../layer-toc.js';
import { runProgram } from '../process.js';
import { oneLayerSample, type SampleFormat, treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Rows 13 to 15 and 17: layers in other formats than zstd:chunked with tar-split. */
export async function formats(bench: Bench): Promise<void> {
  if (wants(bench, 13, 17))
    await opaqueLayer(bench, 'gzip', { ratio: '13', cpu: '13a', memory: '17a' }, 'zcat');
  if (wants(bench, 14, 17))
    await opaqueLayer(bench, 'zstd', { ratio: '14', cpu: '14a', memory: '17b' }, 'zstd -dc');
  if (!wants(bench, 15, 17)) return;
  await chunked(bench, 'zstd:chunked-old', { ratio: '15', memory: '17c' });
  await chunked(bench, 'estargz', { ratio: '15a', memory: '17d' });
}

/** Pulls of an opaque layer, in turns with a pipe of programs that decodes and hashes the same blob on the disk. */
async function opaqueLayer(
  bench: Bench,
  format: SampleFormat,
  rows: { ratio: string; cpu: string; memory: string },
  decoder: string,
): Promise<void> {
  const sample = await oneLayerSample(bench.options.workDir, bench.options.files, format);
  const [blob = ''] = readLayers(sample).map(({ blobPath }) => blobPath);
  const pulls: ColdPull[] = [];
  const pipes: number[] = [];
  await withServer({ layout: sample.layoutDir }, async (server) => {
    for (const _ of eachRun(bench, `${decoder} | openssl, and one ${format} layer`)) {
      const pipe = `${decoder} < "$0" | openssl dgst -sha256`;
      pipes.push(await runProgram('bash', ['-o', 'pipefail', '-c', pipe, blob]));
      pulls.push(await coldPull(bench, server, sample));
    }
  });
  const ratios = pulls.map(({ wallSeconds }, i) => wallSeconds / pipes[i]!);
  const note = pulls
    .map(({ wallSeconds }, i) => `${wallSeconds.toFixed(2)} / ${pipes[i]!.toFixed(2)} s`)
    .join(', ');
  recordWanted(bench, rows.ratio, ratios, note);
  recordWanted(
    bench,
    rows.cpu,
    pulls.map(({ cpuSeconds }) => cpuSeconds),
  );
  recordWanted(
    bench,
    rows.memory,
    pulls.map(({ peakMemoryBytes }) => peakMemoryBytes),
  );
}

/** The four-layer sample in another chunked format, and as zstd:chunked with tar-split, in turns. */
async function chunked(
  bench: Bench,
  format: SampleFormat,
  rows: { ratio: string; memory: string },
): Promise<void> {
  const { workDir, files } = bench.options;
  const modern = await treeSample(workDir, files, 1);
  const other = await treeSample(workDir, files, 1, format);
  const pulls: ColdPull[] = [];
  const moderns: ColdPull[] = [];
  await withServer({ layout: modern.layoutDir }, (first) =>
    withServer({ layout: other.layoutDir }, async (second) => {
      for (const _ of eachRun(bench, `zstd:chunked with tar-split, and ${format}`)) {
        moderns.push(await coldPull(bench, first, modern));
        pulls.push(await coldPull(bench, second, other));
      }
    }),
  );
  const seconds = (run: ColdPull) => `${run.wallSeconds.toFixed(2)} s, ${run.cpuSeconds.toFixed(2)} CPU s`;
  const note = pulls.map((run, i) => `${seconds(run)} / ${seconds(moderns[i]!)}`).join('; ');
  recordWanted(
    bench,
    rows.ratio,
    pulls.map(({ wallSeconds }, i) => wallSeconds / moderns[i]!.wallSeconds),
    note,
  );
  recordWanted(
    bench,
    rows.memory,
    pulls.map(({ peakMemoryBytes }) => peakMemoryBytes),
  );
}
