import { rmSync } from 'node:fs';
import { medianOf } from '../../src/measure/statistics.js';
import {
  type Bench,
  type ColdPull,
  coldPull,
  eachRun,
  inTurns,
  recordWanted,
  wants,
  warnOfOthers,
  withStore,
} from '../context.js';
import { floorSeconds, runFloor } from '../floor.js';
import { readLayerTocs } from '../layer-toc.js';
import { containersStorage, type Peer, tarPipe, verifiedPipeline } from '../peers.js';
import { blobBytes, runPull, tarBytes } from '../process.js';
import { chooseFiles, type RealTars } from '../real-files.js';
import { type RealContent, withSample } from '../real-samples.js';
import { LAYER_SHARES, type Sample, type SampleFormat, tarSample } from '../sample.js';
import { withServer } from '../server.js';
import { leastBytes } from '../update-bytes.js';
import { missingCores, onOneAndTwo } from './pinned.js';
import { pullTo } from './rootfs.js';

/** What most images are made of. */
const ROOT = '/usr';
const ZSTD = verifiedPipeline('zstd:chunked');
const GZIP = verifiedPipeline('gzip');
/** As a pull does it: of a blob without a table of contents the digest tells what is wrong. */
const WHOLE_ZSTD = verifiedPipeline('zstd', true);

/** A cold pull to be compared: the row, its tars as layers of a format, and the pipeline that does the same. */
interface Subject {
  readonly row: number;
  readonly tars: RealContent;
  readonly format: SampleFormat;
  readonly pipeline: Peer;
}

const SUBJECTS: readonly Subject[] = [
  { row: 31, tars: 'one', format: 'zstd:chunked', pipeline: ZSTD },
  { row: 32, tars: 'four', format: 'zstd:chunked', pipeline: ZSTD },
  { row: 33, tars: 'small', format: 'zstd:chunked', pipeline: ZSTD },
  { row: 34, tars: 'noise', format: 'zstd:chunked', pipeline: ZSTD },
  { row: 35, tars: 'four', format: 'gzip', pipeline: GZIP },
  { row: 36, tars: 'one', format: 'gzip', pipeline: GZIP },
  { row: 37, tars: 'one', format: 'zstd', pipeline: WHOLE_ZSTD },
];

/**
 * Rows 31 to 41: files of this machine, against other programs at what they do, in turns. Everything is in the page cache, and each sample is
 * removed before the next one is written.
 */
export async function real(bench: Bench): Promise<void> {
  const { realBytes = 0 } = bench.options;
  const files = chooseFiles(ROOT, realBytes);
  for (const subject of SUBJECTS) {
    const rows = subject.row === 31 ? [31, 38, 41] : [subject.row];
    if (!wants(bench, ...rows)) continue;
    await withSample(bench, subject, files, async (sample) => {
      if (wants(bench, subject.row)) await againstPipeline(bench, sample, subject);
      if (subject.row !== 31) return;
      if (wants(bench, 31)) await againstFloor(bench, sample);
      if (wants(bench, 38)) await toRootfs(bench, sample);
      if (wants(bench, 41)) await onOneCore(bench, sample);
    });
  }
  if (wants(bench, 39)) await update(bench, files);
  if (wants(bench, 40)) await estargz(bench, files);
}

/** Rows 31 to 37. */
async function againstPipeline(bench: Bench, sample: Sample, { row, pipeline }: Subject): Promise<void> {
  const pulls: ColdPull[] = [];
  await withServer({ layout: sample.layoutDir }, async (server) => {
    const peers = { [`${row}`]: pipeline, [`${row}a`]: containersStorage };
    await inTurns(bench, peers, { host: server.host, sample }, async () => {
      const pull = await coldPull(bench, server, sample);
      pulls.push(pull);
      return pull.wallSeconds;
    });
  });
  recordWanted(
    bench,
    `${row}b`,
    pulls.map(({ cpuSeconds }) => cpuSeconds),
  );
  recordWanted(
    bench,
    `${row}c`,
    pulls.map(({ peakMemoryBytes }) => peakMemoryBytes),
  );
  warnOfOthers(bench, pulls, `during the pulls of row ${row}`);
}

/** Row 31d. */
async function againstFloor(bench: Bench, sample: Sample): Promise<void> {
  const ratios: number[] = [];
  const notes: string[] = [];
  await withServer({ layout: sample.layoutDir }, async (server) => {
    for (const _ of eachRun(bench, 'floor and cold pull')) {
      const floor = await runFloor(bench, sample, server.host);
      const { cpuSeconds, result } = await coldPull(bench, server, sample);
      const seconds = floorSeconds(floor, tarBytes(result));
      ratios.push(cpuSeconds / seconds);
      notes.push(`${cpuSeconds.toFixed(2)} / ${seconds.toFixed(2)} s`);
    }
  });
  recordWanted(bench, '31d', ratios, notes.join(', '));
}

/** Row 38: from the registry to files. */
async function toRootfs(bench: Bench, sample: Sample): Promise<void> {
  await withServer({ layout: sample.layoutDir }, ({ host }) =>
    inTurns(
      bench,
      { '38': containersStorage, '38a': tarPipe },
      { host, sample },
      pullTo(bench, sample, host),
    ),
  );
}

/** Row 41: client and server together on one core and on two. */
async function onOneCore(bench: Bench, sample: Sample): Promise<void> {
  const missing = missingCores();
  if (missing !== undefined) return bench.report.skip('41', missing);
  const { one, two } = await onOneAndTwo(bench, sample);
  const ratios = one.map(({ wallSeconds }, run) => wallSeconds / two[run]!.wallSeconds);
  recordWanted(bench, '41', ratios);
}

/** Row 39: a second version, of which one file in nine is another, onto a store that has the first. */
async function update(bench: Bench, files: RealTars): Promise<void> {
  await withSample(bench, { tars: 'four', format: 'zstd:chunked' }, files, async (first) => {
    const tars = files.write(`${first.layoutDir}-`, LAYER_SHARES, 2);
    const second = await tarSample(first.layoutDir, 'v2', tars, 'zstd:chunked');
    for (const path of tars) rmSync(path);
    const least = leastBytes(await readLayerTocs(first), await readLayerTocs(second), 'zstd:chunked');
    const fetched: number[] = [];
    await withServer({ layout: first.layoutDir }, async ({ host }) => {
      const peer: Peer = {
        ...containersStorage,
        run: async (at, sample, directory) => {
          await containersStorage.run(at, first, directory);
          return containersStorage.run(at, sample, directory);
        },
      };
      await inTurns(bench, { '39a': peer }, { host, sample: second }, () =>
        withStore(bench, async (store) => {
          await runPull({ host, ref: first.ref, store });
          const { result, wallSeconds } = await runPull({ host, ref: second.ref, store });
          fetched.push(result.fetchedBytes);
          return wallSeconds;
        }),
      );
    });
    const note = `${(medianOf(fetched) / 1e6).toFixed(1)} of ${(least / 1e6).toFixed(1)} MB`;
    recordWanted(
      bench,
      '39',
      fetched.map((bytes) => bytes / least),
      note,
    );
  });
}

/** Row 40. Bytes repeat exactly: one run is enough. */
async function estargz(bench: Bench, files: RealTars): Promise<void> {
  await withSample(bench, { tars: 'one', format: 'estargz' }, files, async (sample) => {
    await withServer({ layout: sample.layoutDir }, async (server) => {
      const { result } = await coldPull(bench, server, sample);
      recordWanted(bench, '40', [result.fetchedBytes - blobBytes(result)]);
    });
  });
}
