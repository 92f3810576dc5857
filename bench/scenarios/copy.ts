import { type Bench, inTurns, recordWanted, wants } from '../context.js';
import { cranePull, type Peer, skopeoCopy } from '../peers.js';
import { runZpull } from '../process.js';
import { rowNumber } from '../rows.js';
import { largeLayerSample } from '../sample.js';
import { withServer } from '../server.js';

/** The layer on loopback; the second one with --large. */
const NEAR_BYTES = 800e6;
const LARGE_BYTES = 4 * 2 ** 30;
/** The layer from far away: 13 s on one connection. */
const FAR_BYTES = 256 * 2 ** 20;

const FAR = { latencyMs: 50, ratePerConnectionBytes: 20e6 };

/** Rows 25 to 27: one large layer into an OCI layout, near and far, in turns with other programs. */
export async function copy(bench: Bench): Promise<void> {
  await copies(bench, NEAR_BYTES, { '25': skopeoCopy, '25a': cranePull }, '25b');
  if (bench.options.large) await copies(bench, LARGE_BYTES, { '27': skopeoCopy, '27a': cranePull }, '27b');
  else if (wants(bench, 27)) for (const id of ['27', '27a', '27b']) bench.report.skip(id, 'needs --large');
  await copies(bench, FAR_BYTES, { '26': skopeoCopy }, undefined, FAR);
}

async function copies(
  bench: Bench,
  sizeBytes: number,
  peers: Readonly<Record<string, Peer>>,
  memory?: string,
  shape = {},
): Promise<void> {
  if (!wants(bench, rowNumber(Object.keys(peers)[0]!))) return;
  const sample = await largeLayerSample(bench.options.workDir, sizeBytes);
  const peaks: number[] = [];
  await withServer({ layout: sample.layoutDir, ...shape }, ({ host }) =>
    inTurns(bench, peers, { host, sample, note: `${(sizeBytes / 1e6).toFixed(0)} MB` }, async (directory) => {
      const run = await runZpull(['copy', `${host}/bench:${sample.ref}`, `oci:${directory}:x`]);
      peaks.push(run.peakMemoryBytes);
      return run.wallSeconds;
    }),
  );
  if (memory !== undefined) recordWanted(bench, memory, peaks);
}
