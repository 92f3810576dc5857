import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { exportLayers } from '../../src/api/export.js';
import { type Bench, eachRun, newPath, recordWanted, wants, withStore } from '../context.js';
import { writeFilledStore } from '../filled-store.js';
import type { PlanChildOptions } from '../plan-child.js';
import { benchFile, lastJson, runNode } from '../process.js';
import { runPull } from '../pull-process.js';
import { type SampleFormat, treeSample } from '../sample.js';
import { type Server, withServer } from '../server.js';
import { median } from '../statistics.js';
import { runZpull } from '../zpull-process.js';

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
      bytes.push(filled.maxRssBytes - empty.maxRssBytes);
      notes.push(empty.seconds);
    }
  });
  recordWanted(bench, '20', seconds, `${median(notes).toFixed(2)} s against an empty store`);
  recordWanted(bench, '20a', bytes);
}

async function plan({ host }: Server, ref: string, store: string) {
  const told: PlanChildOptions = {
    reference: `${host}/bench:${ref}`,
    options: { store, plainHttp: true, platform: 'linux/amd64' },
  };
  const finished = await runNode([benchFile('plan-child.js'), JSON.stringify(told)]);
  return lastJson(finished) as { seconds: number; maxRssBytes: number };
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
  if (spawnSync('openssl', ['version']).status !== 0) return bench.report.skip('22', 'needs openssl');
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const ratios: number[] = [];
  const walls: number[] = [];
  await withServer({ layout: layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      const { result } = await runPull({ host, ref, store });
      const directory = newPath(bench);
      const tars = await exportLayers({
        store,
        directory,
        diffIds: result.layers.map(({ diffId }) => diffId),
      });
      for (const _ of eachRun(bench, 'hashing all layers')) {
        const { wallSeconds } = await runZpull(['store', 'verify', '--store', store]);
        const startedMs = performance.now();
        spawnSync('openssl', ['dgst', '-sha256', ...tars]);
        ratios.push((wallSeconds * 1000) / (performance.now() - startedMs));
        walls.push(wallSeconds);
      }
      rmSync(directory, { recursive: true });
    }),
  );
  recordWanted(bench, '22', ratios, `${median(walls).toFixed(2)} s`);
}
