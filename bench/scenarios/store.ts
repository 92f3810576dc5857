import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { exportLayers } from '../../src/api/export.js';
import { medianOf } from '../../src/measure/statistics.js';
import { type Bench, eachRun, newPath, recordWanted, wants, withStore } from '../context.js';
import { writeFilledStore } from '../filled-store.js';
import { absent } from '../peers.js';
import { pullWords, runProgram, runPull, runZpull } from '../process.js';
import { type SampleFormat, treeSample } from '../sample.js';
import { type Server, withServer } from '../server.js';

/** A store as large as that of a machine which has seen many images. */
const PACKS = 100;
const CONTENTS = 1_000_000;

/** Row 20: the same plan against an empty store and against a full one, in turns. */
export async function planning(bench: Bench): Promise<void> {
  if (!wants(bench, 20)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const full = newPath(bench);
  writeFilledStore(full, PACKS, CONTENTS);
  const seconds: number[] = [];
  const bytes: number[] = [];
  const notes: number[] = [];
  await withServer({ layout: layoutDir }, async (server) => {
    for (const _ of eachRun(bench, 'planning against a full store')) {
      const empty = await withStore(bench, (store) => plan(server, ref, store));
      const filled = await plan(server, ref, full);
      seconds.push(filled.seconds - empty.seconds);
      bytes.push(filled.peakMemoryBytes - empty.peakMemoryBytes);
      notes.push(empty.seconds);
    }
  });
  recordWanted(bench, '20', seconds, `${medianOf(notes).toFixed(2)} s against an empty store`);
  recordWanted(bench, '20a', bytes);
}

/** Seconds from the resolved image to the plan, and the memory of the process. */
async function plan({ host }: Server, ref: string, store: string) {
  const { result, peakMemoryBytes } = await runZpull(pullWords({ host, ref, store }, 'plan'));
  return { seconds: result.stages.metadata.wallMs / 1000, peakMemoryBytes };
}

/** Row 21: the disk that an image and its next version take together. Bytes repeat exactly: one run is enough. */
export async function sharing(bench: Bench): Promise<void> {
  if (!wants(bench, 21)) return;
  await shareOf(bench, '21', 'zstd:chunked');
  await shareOf(bench, '21a', 'gzip');
}

async function shareOf(bench: Bench, id: string, format: SampleFormat): Promise<void> {
  const { workDir, files } = bench.options;
  const first = await treeSample(workDir, files, 1, format);
  const second = await treeSample(workDir, files, 2, format);
  process.stderr.write(`disk used by ${format}\n`);
  await withServer({ layout: first.layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref: first.ref, store });
      const alone = diskBytes(store);
      await runPull({ host, ref: second.ref, store });
      const together = diskBytes(store);
      const note = `${(together / 1e6).toFixed(0)} / ${(alone / 1e6).toFixed(0)} MB`;
      recordWanted(bench, id, [together / alone], note);
    }),
  );
}

function diskBytes(directory: string): number {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => statSync(join(directory, name)).blocks * 512)
    .reduce((sum, bytes) => sum + bytes, 0);
}

/** Row 22: all layers hashed by `zpull store verify` and, one after the other, by openssl, in turns. */
export async function verifying(bench: Bench): Promise<void> {
  if (!wants(bench, 22)) return;
  const missing = absent('openssl');
  if (missing !== undefined) return bench.report.skip('22', missing);
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  const walls: number[] = [];
  const withStores = (action: (store: string, directory: string) => Promise<void>) =>
    withStore(bench, (store) => withStore(bench, (directory) => action(store, directory)));
  await withServer({ layout: layoutDir }, ({ host }) =>
    withStores(async (store, directory) => {
      const { result } = await runPull({ host, ref, store });
      const diffIds = result.layers.map(({ diffId }) => diffId);
      const tars = await exportLayers({ store, directory, diffIds });
      for (const _ of eachRun(bench, 'hashing all layers')) {
        const { wallSeconds } = await runZpull(['store', 'verify', '--store', store]);
        ratios.push(wallSeconds / (await runProgram('openssl', ['dgst', '-sha256', ...tars])));
        walls.push(wallSeconds);
      }
    }),
  );
  recordWanted(bench, '22', ratios, `${medianOf(walls).toFixed(2)} s`);
}
