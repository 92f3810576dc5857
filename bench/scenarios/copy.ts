import { rmSync } from 'node:fs';
import { type Bench, eachRun, newPath, recordWanted, wants } from '../context.js';
import { missingProgram, runProgram } from '../process.js';
import { largeLayerSample, type Sample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';
import { runZpull } from '../zpull-process.js';

/** The layer on loopback: 4 GiB with --large. */
const NEAR_BYTES = 2 ** 30;
const LARGE_BYTES = 4 * 2 ** 30;
/** The layer from far away: 13 s on one connection. */
const FAR_BYTES = 256 * 2 ** 20;

const LATENCY_MS = 50;
const RATE_BYTES = 20e6;

/** Copies an image into a new layout; its seconds. */
type Copy = (host: string, ref: string, directory: string) => Promise<number>;

const zpull: Copy = (host, ref, directory) => runZpull('copy', `${host}/bench:${ref}`, `oci:${directory}:x`);

const skopeo: Copy = (host, ref, directory) => {
  const options = ['copy', '--quiet', '--insecure-policy', '--src-tls-verify=false'];
  return runProgram('skopeo', [...options, `docker://${host}/bench:${ref}`, `oci:${directory}:x`]);
};

const crane: Copy = (host, ref, directory) =>
  runProgram('crane', ['pull', '--insecure', '--format', 'oci', `${host}/bench:${ref}`, directory]);

/** Rows 25 and 26: one large layer into an OCI layout, near and far, in turns with other programs. */
export async function copy(bench: Bench): Promise<void> {
  const { workDir, large } = bench.options;
  if (wants(bench, 25)) {
    const sizeBytes = large ? LARGE_BYTES : NEAR_BYTES;
    const sample = await largeLayerSample(workDir, sizeBytes);
    const note = `${sizeBytes / 2 ** 30} GiB`;
    await withServer({ layout: sample.layoutDir }, async ({ host }) => {
      await compare(bench, sample, { id: '25', host, note, name: 'skopeo', theirs: skopeo });
      await compare(bench, sample, { id: '25a', host, note, name: 'crane', theirs: crane });
    });
  }
  if (wants(bench, 26)) {
    const sample = await largeLayerSample(workDir, FAR_BYTES);
    const shaped = { layout: sample.layoutDir, latencyMs: LATENCY_MS, ratePerConnectionBytes: RATE_BYTES };
    await withServer(shaped, ({ host }) =>
      compare(bench, sample, { id: '26', host, note: '256 MiB', name: 'skopeo', theirs: skopeo }),
    );
  }
}

async function compare(
  bench: Bench,
  { ref }: Sample,
  row: { id: string; host: string; note: string; name: string; theirs: Copy },
): Promise<void> {
  const { id, host, note, name, theirs } = row;
  if (missingProgram(name) !== undefined) return bench.report.skip(id, `${name} is not installed`);
  const seconds: Record<'ours' | 'theirs', number[]> = { ours: [], theirs: [] };
  for (const _ of eachRun(bench, `copy and ${name}`)) {
    for (const [who, run] of [
      ['theirs', theirs],
      ['ours', zpull],
    ] as const) {
      const directory = newPath(bench);
      seconds[who].push(await run(host, ref, directory));
      rmSync(directory, { recursive: true });
    }
  }
  const ratios = seconds.ours.map((own, run) => own / seconds.theirs[run]!);
  recordWanted(
    bench,
    id,
    ratios,
    `${note}: ${median(seconds.ours).toFixed(2)} / ${median(seconds.theirs).toFixed(2)} s`,
  );
}
