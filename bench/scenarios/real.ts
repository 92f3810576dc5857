import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Bench, eachRun, newPath, recordWanted, wants, withStore } from '../context.js';
import { floorSeconds, runFloor } from '../floor.js';
import { readLayerTocs } from '../layer-toc.js';
import { MachineLoad } from '../machine-load.js';
import { containersStorage, type Peer, tarPipe, verifiedPipeline } from '../peers.js';
import { canPin } from '../process.js';
import { blobBytes, type PullRun, runPull } from '../pull-process.js';
import { chooseFiles, type RealTars } from '../real-files.js';
import { type RealContent, withSample } from '../real-samples.js';
import { LAYER_SHARES, type Sample, type SampleFormat, tarSample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';
import { leastBytes } from '../update-bytes.js';
import { runZpull } from '../zpull-process.js';

/** What most images are made of. */
const ROOT = '/usr';
const ZSTD = verifiedPipeline({ decoder: 'zstd', hashesBlob: false });
const GZIP = verifiedPipeline({ decoder: 'pigz', hashesBlob: false });
/** As a pull does it: of a blob without a table of contents the digest tells what is wrong. */
const WHOLE_ZSTD = verifiedPipeline({ decoder: 'zstd', hashesBlob: true });

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
      if (wants(bench, subject.row)) await coldPull(bench, sample, subject);
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
async function coldPull(bench: Bench, sample: Sample, { row, pipeline }: Subject): Promise<void> {
  const pulls: PullRun[] = [];
  const load = new MachineLoad();
  await withServer({ layout: sample.layoutDir }, async (server) => {
    const { host } = server;
    await inTurns(
      bench,
      { [`${row}`]: pipeline, [`${row}a`]: containersStorage },
      { host, sample },
      async () => {
        const before = await server.cpuSeconds();
        load.start();
        const pull = await withStore(bench, (store) => runPull({ host, ref: sample.ref, store }));
        load.stop(pull.cpuSeconds + (await server.cpuSeconds()) - before);
        pulls.push(pull);
        return pull.wallSeconds;
      },
    );
  });
  record(bench, `${row}b`, pulls, (pull) => pull.cpuSeconds);
  record(bench, `${row}c`, pulls, (pull) => pull.maxRssBytes);
  load.warn(bench.report, `during the pulls of row ${row}`);
}

/** Row 31d. */
async function againstFloor(bench: Bench, sample: Sample): Promise<void> {
  const ratios: number[] = [];
  const notes: string[] = [];
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    for (const _ of eachRun(bench, 'floor and cold pull')) {
      const directory = newPath(bench);
      const floor = floorSeconds(await runFloor({ sample, host, directory, files: availableParallelism() }));
      const { cpuSeconds } = await withStore(bench, (store) => runPull({ host, ref: sample.ref, store }));
      ratios.push(cpuSeconds / floor);
      notes.push(`${cpuSeconds.toFixed(2)} / ${floor.toFixed(2)} s`);
    }
  });
  recordWanted(bench, '31d', ratios, notes.join(', '));
}

/** Row 38: from the registry to files. */
async function toRootfs(bench: Bench, sample: Sample): Promise<void> {
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    await inTurns(bench, { '38': containersStorage, '38a': tarPipe }, { host, sample }, (directory) =>
      withStore(bench, async (store) => {
        const args = ['--platform', 'linux/amd64', '--store', store, '--output', `rootfs:${directory}`];
        return (await runZpull(['pull', `${host}/bench:${sample.ref}`, ...args])).wallSeconds;
      }),
    );
  });
}

/** Row 41: client and server together on one core and on two. */
async function onOneCore(bench: Bench, { layoutDir, ref }: Sample): Promise<void> {
  if (availableParallelism() < 2 || !canPin('0,1'))
    return bench.report.skip('41', 'needs taskset, cores 0 and 1');
  const pullOn = (cores: string) =>
    withServer(
      { layout: layoutDir },
      ({ host }) =>
        withStore(bench, async (store) => (await runPull({ host, ref, store }, cores)).wallSeconds),
      cores,
    );
  const ratios: number[] = [];
  for (const _ of eachRun(bench, 'one core and two'))
    ratios.push((await pullOn('0')) / (await pullOn('0,1')));
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
    const note = `${(median(fetched) / 1e6).toFixed(1)} of ${(least / 1e6).toFixed(1)} MB`;
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
  await withSample(bench, { tars: 'one', format: 'estargz' }, files, async ({ layoutDir, ref }) => {
    await withServer({ layout: layoutDir }, async ({ host }) => {
      const { result } = await withStore(bench, (store) => runPull({ host, ref, store }));
      recordWanted(bench, '40', [result.fetchedBytes - blobBytes(result)]);
    });
  });
}

/**
 * Measures zpull and each of these peers in turns, each time into a directory that is removed afterwards; the ratios are those of a turn. A peer
 * that is not there is named in its row.
 */
async function inTurns(
  bench: Bench,
  peers: Readonly<Record<string, Peer>>,
  { host, sample }: { readonly host: string; readonly sample: Sample },
  zpull: (directory: string) => Promise<number>,
): Promise<void> {
  const into = async (action: (directory: string) => Promise<number>) => {
    const directory = newPath(bench);
    try {
      return await action(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
  const theirs = new Map<string, number[]>();
  for (const [id, { missing }] of Object.entries(peers)) {
    if (missing === undefined) theirs.set(id, []);
    else bench.report.skip(id, missing);
  }
  const ours: number[] = [];
  for (const _ of eachRun(bench, `zpull and rows ${Object.keys(peers).join(', ')}`)) {
    for (const [id, seconds] of theirs) {
      seconds.push(await into((directory) => peers[id]!.run(host, sample, directory)));
    }
    ours.push(await into(zpull));
  }
  for (const [id, seconds] of theirs) {
    const ratios = ours.map((own, run) => own / seconds[run]!);
    const note = `${median(ours).toFixed(2)} / ${median(seconds).toFixed(2)} s, ${peers[id]!.name}`;
    recordWanted(bench, id, ratios, note);
  }
}

function record(
  bench: Bench,
  id: string,
  pulls: readonly PullRun[],
  figure: (pull: PullRun) => number,
): void {
  recordWanted(bench, id, pulls.map(figure));
}
