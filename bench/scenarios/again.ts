import { commandLine } from '../command-line.js';
import { type Bench, eachRun, recordWanted, wants, withStore } from '../context.js';
import { lastJson, runNode } from '../process.js';
import { type PullJob, runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';
import { median } from '../statistics.js';

/** A short process: several in a run cost little and steady the figure. */
const TIMES = 5;

interface Again {
  readonly fetchedBytes: number;
  readonly wallMs: number;
}

/** Row 8: the same pull once more, and `node -e 0`, in turns. */
export async function again(bench: Bench): Promise<void> {
  if (!wants(bench, 8)) return;
  const { layoutDir, ref } = await treeSample(bench.options.workDir, bench.options.files, 1);
  const program = commandLine();
  const ratios: number[] = [];
  const pulls: Again[] = [];
  const emptyMs: number[] = [];
  await withServer({ layout: layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref, store });
      for (const _ of eachRun(bench, 'the same pull again')) {
        for (let i = 0; i < TIMES; i += 1) {
          emptyMs.push((await runNode(['-e', '0'])).wallMs);
          pulls.push(await pullAgain(program, { host, ref, store }));
        }
        const last = pulls.slice(-TIMES).map(({ wallMs }) => wallMs);
        ratios.push(median(last) / median(emptyMs.slice(-TIMES)));
      }
    }),
  );
  recordWanted(bench, '8a', [Math.max(...pulls.map(({ fetchedBytes }) => fetchedBytes))]);
  const wallMs = median(pulls.map((pull) => pull.wallMs));
  const by = program === undefined ? 'by pullImage alone: bin/zpull.cjs is absent' : 'by bin/zpull.cjs';
  recordWanted(bench, '8b', ratios, `${wallMs.toFixed(0)} / ${median(emptyMs).toFixed(0)} ms, ${by}`);
}

async function pullAgain(program: string | undefined, job: PullJob): Promise<Again> {
  if (program === undefined) {
    const { result, wallSeconds } = await runPull(job);
    return { fetchedBytes: result.fetchedBytes, wallMs: wallSeconds * 1000 };
  }
  const options = ['--json', '--plain-http', '--platform', 'linux/amd64', '--store', job.store];
  const finished = await runNode([program, 'pull', ...options, `${job.host}/bench:${job.ref}`]);
  const { fetchedBytes } = lastJson(finished) as { fetchedBytes: number };
  return { fetchedBytes, wallMs: finished.wallMs };
}
