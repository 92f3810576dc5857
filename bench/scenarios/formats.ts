import { spawn } from 'node:child_process';
import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { readLayers } from '../layer-toc.js';
import { finish } from '../process.js';
import { type PullRun, runPull } from '../pull-process.js';
import { oneLayerSample, type Sample, type SampleFormat, treeSample } from '../sample.js';
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
  const pulls: PullRun[] = [];
  const pipes: number[] = [];
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    for (const _ of eachRun(bench, `${decoder} | openssl, and one ${format} layer`)) {
      pipes.push(await pipeSeconds(`${decoder} < "$0" | openssl dgst -sha256`, blob));
      pulls.push(await pullOnce(bench, host, sample));
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
    pulls.map(({ maxRssBytes }) => maxRssBytes),
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
  const pulls: PullRun[] = [];
  const moderns: PullRun[] = [];
  await withServer({ layout: modern.layoutDir }, (first) =>
    withServer({ layout: other.layoutDir }, async (second) => {
      for (const _ of eachRun(bench, `zstd:chunked with tar-split, and ${format}`)) {
        moderns.push(await pullOnce(bench, first.host, modern));
        pulls.push(await pullOnce(bench, second.host, other));
      }
    }),
  );
  const seconds = (run: PullRun) => `${run.wallSeconds.toFixed(2)} s, ${run.cpuSeconds.toFixed(2)} CPU s`;
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
    pulls.map(({ maxRssBytes }) => maxRssBytes),
  );
}

function pullOnce(bench: Bench, host: string, { ref }: Sample): Promise<PullRun> {
  return withStore(bench, (store) => runPull({ host, ref, store }));
}

/** Wall seconds of a shell's pipe; `$0` is its one argument. @throws Error when it fails */
async function pipeSeconds(script: string, argument: string): Promise<number> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', script, argument], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { code, stderr, wallMs } = await finish(child);
  if (code !== 0) throw new Error(`${script} failed: ${stderr}`);
  return wallMs / 1000;
}
