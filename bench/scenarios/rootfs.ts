import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, inTurns, wants, withStore } from '../context.js';
import { readLayers } from '../layer-toc.js';
import { absent, type Peer, tarPipe } from '../peers.js';
import { runProgram, runZpull } from '../process.js';
import { type Sample, treeSample } from '../sample.js';
import { withServer } from '../server.js';

const PLATFORM = ['--platform', 'linux/amd64'];

/** Rows 23 and 24: an image as files, against tar on the same layers, and against a pipe that proves nothing. */
export async function rootfs(bench: Bench): Promise<void> {
  if (!wants(bench, 23, 24)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    if (wants(bench, 23)) await againstTar(bench, sample, host);
    if (wants(bench, 24))
      await inTurns(bench, { '24': tarPipe }, { host, sample }, pullTo(bench, sample, host));
  });
}

/** Pulls from the registry to files. @returns its seconds */
export function pullTo(bench: Bench, { ref }: Sample, host: string): (directory: string) => Promise<number> {
  return (directory) =>
    withStore(bench, async (store) => {
      const args = ['--output', `rootfs:${directory}`, '--store', store, ...PLATFORM];
      return (await runZpull(['pull', `${host}/bench:${ref}`, ...args])).wallSeconds;
    });
}

/** Row 23: the store has the image; tar has its layers as tars. */
async function againstTar(bench: Bench, sample: Sample, host: string): Promise<void> {
  const missing = absent('tar');
  if (missing !== undefined) return bench.report.skip('23', missing);
  await withStore(bench, (layers) =>
    withStore(bench, async (store) => {
      const image = [`${host}/bench:${sample.ref}`, '--store', store, ...PLATFORM];
      await runZpull(['pull', ...image]);
      await runZpull(['export', ...image.toSpliced(1, 0, `layers:${layers}`)]);
      const tars = readLayers(sample).map(({ diffId }) =>
        join(layers, `${diffId.slice('sha256:'.length)}.tar`),
      );
      const tar: Peer = {
        name: 'tar -x',
        missing,
        async run(_host, _sample, directory) {
          mkdirSync(directory);
          let seconds = 0;
          for (const path of tars)
            seconds += await runProgram('tar', ['-xpf', path, '-C', directory, '--numeric-owner']);
          return seconds;
        },
      };
      await inTurns(bench, { '23': tar }, { host, sample }, async (directory) => {
        const run = await runZpull(['export', ...image.toSpliced(1, 0, `rootfs:${directory}`)]);
        return run.wallSeconds;
      });
    }),
  );
}
