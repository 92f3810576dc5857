import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, eachRun, newPath, recordWanted, wants, withStore } from '../context.js';
import { readLayerTocs } from '../layer-toc.js';
import { tarPipe } from '../peers.js';
import { missingProgram, runProgram } from '../process.js';
import { type Sample, treeSample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';
import { runZpull } from '../zpull-process.js';

const PLATFORM = ['--platform', 'linux/amd64'];

/** Rows 23 and 24: an image as files, against tar on the same layers, and against a pipe that proves nothing. */
export async function rootfs(bench: Bench): Promise<void> {
  if (!wants(bench, 23, 24)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    if (wants(bench, 23)) await againstTar(bench, sample, host);
    if (wants(bench, 24)) await againstPipe(bench, sample, host);
  });
}

/** Row 23: the store has the image; tar has its layers as tars. */
async function againstTar(bench: Bench, sample: Sample, host: string): Promise<void> {
  const missing = missingProgram('tar');
  if (missing !== undefined) return bench.report.skip('23', `${missing} is not installed`);
  await withStore(bench, async (store) => {
    const image = [`${host}/bench:${sample.ref}`, '--store', store, ...PLATFORM];
    await runZpull(['pull', ...image]);
    const layers = newPath(bench);
    await runZpull(['export', ...image.toSpliced(1, 0, `layers:${layers}`)]);
    const tocs = await readLayerTocs(sample);
    const tars = tocs.map(({ diffId }) => join(layers, `${diffId.slice('sha256:'.length)}.tar`));
    await inTurns(bench, '23', 'export rootfs and tar -x', {
      ours: async (directory) =>
        (await runZpull(['export', ...image.toSpliced(1, 0, `rootfs:${directory}`)])).wallSeconds,
      theirs: async (directory) => {
        mkdirSync(directory);
        let seconds = 0;
        for (const tar of tars)
          seconds += await runProgram('tar', ['-xpf', tar, '-C', directory, '--numeric-owner']);
        return seconds;
      },
    });
    rmSync(layers, { recursive: true });
  });
}

/** Row 24: from the registry to files. */
async function againstPipe(bench: Bench, sample: Sample, host: string): Promise<void> {
  if (tarPipe.missing !== undefined) return bench.report.skip('24', tarPipe.missing);
  await inTurns(bench, '24', 'pull + rootfs and curl | zstd | tar', {
    ours: (directory) =>
      withStore(bench, async (store) => {
        const args = [`${host}/bench:${sample.ref}`, '--output', `rootfs:${directory}`, '--store', store];
        return (await runZpull(['pull', ...args, ...PLATFORM])).wallSeconds;
      }),
    theirs: (directory) => tarPipe.run(host, sample, directory),
  });
}

/** Measures both in turns, each into a new directory. */
async function inTurns(
  bench: Bench,
  id: string,
  what: string,
  work: Readonly<Record<'ours' | 'theirs', (directory: string) => Promise<number>>>,
): Promise<void> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (const _ of eachRun(bench, what)) {
    for (const [seconds, run] of [
      [theirs, work.theirs],
      [ours, work.ours],
    ] as const) {
      const directory = newPath(bench);
      seconds.push(await run(directory));
      rmSync(directory, { recursive: true, force: true });
    }
  }
  const ratios = ours.map((seconds, run) => seconds / theirs[run]!);
  recordWanted(bench, id, ratios, `${median(ours).toFixed(2)} / ${median(theirs).toFixed(2)} s`);
}
