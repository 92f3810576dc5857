import { rmSync } from 'node:fs';
import { type Bench, eachRun, newPath, recordWanted, wants } from '../context.js';
import { missingProgram, runProgram } from '../process.js';
import { rowNumber } from '../rows.js';
import { largeLayerSample, type Sample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';
import { runZpull, type ZpullRun } from '../zpull-process.js';

/** The layer on loopback; the second one with --large. */
const NEAR_BYTES = 800e6;
const LARGE_BYTES = 4 * 2 ** 30;
/** The layer from far away: 13 s on one connection. */
const FAR_BYTES = 256 * 2 ** 20;

const LATENCY_MS = 50;
const RATE_BYTES = 20e6;

/** Copies an image into a new layout; its seconds. */
type Copy = (host: string, ref: string, directory: string) => Promise<number>;

const zpull = (host: string, ref: string, directory: string) =>
  runZpull(['copy', `${host}/bench:${ref}`, `oci:${directory}:x`]);

const skopeo: Copy = (host, ref, directory) => {
  const options = ['copy', '--quiet', '--insecure-policy', '--src-tls-verify=false'];
  return runProgram('skopeo', [...options, `docker://${host}/bench:${ref}`, `oci:${directory}:x`]);
};

const crane: Copy = (host, ref, directory) =>
  runProgram('crane', ['pull', '--insecure', '--format', 'oci', `${host}/bench:${ref}`, directory]);

/** Rows 25 to 27: one large layer into an OCI layout, near and far, in turns with other programs. */
export async function copy(bench: Bench): Promise<void> {
  const { workDir, large } = bench.options;
  await near(bench, NEAR_BYTES, { skopeo: '25', crane: '25a', memory: '25b' });
  if (large) await near(bench, LARGE_BYTES, { skopeo: '27', crane: '27a', memory: '27b' });
  else for (const id of ['27', '27a', '27b']) bench.report.skip(id, 'needs --large');
  if (wants(bench, 26)) {
    const sample = await largeLayerSample(workDir, FAR_BYTES);
    const shaped = { layout: sample.layoutDir, latencyMs: LATENCY_MS, ratePerConnectionBytes: RATE_BYTES };
    await withServer(shaped, ({ host }) =>
      compare(bench, sample, { id: '26', host, note: '256 MiB', name: 'skopeo', theirs: skopeo }),
    );
  }
}

async function near(
  bench: Bench,
  sizeBytes: number,
  rows: Readonly<Record<'skopeo' | 'crane' | 'memory', string>>,
): Promise<void> {
  if (!wants(bench, rowNumber(rows.skopeo))) return;
  const sample = await largeLayerSample(bench.options.workDir, sizeBytes);
  const note = `${(sizeBytes / 1e6).toFixed(0)} MB`;
  await withServer({ layout: sample.layoutDir }, async ({ host }) => {
    await compare(bench, sample, { id: rows.skopeo, host, note, name: 'skopeo', theirs: skopeo });
    const { memory } = rows;
    await compare(bench, sample, { id: rows.crane, memory, host, note, name: 'crane', theirs: crane });
  });
}

async function compare(
  bench: Bench,
  { ref }: Sample,
  row: { id: string; memory?: string; host: string; note: string; name: string; theirs: Copy },
): Promise<void> {
  const { id, memory, host, note, name, theirs } = row;
  if (missingProgram(name) !== undefined) return bench.report.skip(id, `${name} is not installed`);
  const own: ZpullRun[] = [];
  const others: number[] = [];
  for (const _ of eachRun(bench, `copy and ${name}`)) {
    others.push(await into(bench, (directory) => theirs(host, ref, directory)));
    own.push(await into(bench, (directory) => zpull(host, ref, directory)));
  }
  const seconds = own.map(({ wallSeconds }) => wallSeconds);
  recordWanted(
    bench,
    id,
    seconds.map((each, run) => each / others[run]!),
    `${note}: ${median(seconds).toFixed(2)} / ${median(others).toFixed(2)} s`,
  );
  if (memory === undefined) return;
  recordWanted(
    bench,
    memory,
    own.map(({ maxRssBytes }) => maxRssBytes),
  );
}

/** Runs `action` with a directory that is not there, and removes that. */
async function into<T>(bench: Bench, action: (directory: string) => Promise<T>): Promise<T> {
  const directory = newPath(bench);
  const result = await action(directory);
  rmSync(directory, { recursive: true });
  return result;
}
