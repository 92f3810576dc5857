import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { failureOf, reportFailure } from '../src/cli/failure.js';
import { untilSignal } from '../src/cli/signals.js';
import { type Comparison, compareResults, readResults } from './compare.js';
import type { Bench } from './context.js';
import { writeMarkdownTable } from './markdown.js';
import { parseOptions, USAGE } from './options.js';
import { stop } from './process.js';
import { createReport } from './report.js';
import { REAL_ROWS, ROWS } from './rows.js';
import { again } from './scenarios/again.js';
import { cold } from './scenarios/cold.js';
import { copy } from './scenarios/copy.js';
import { distant } from './scenarios/distant.js';
import { formats } from './scenarios/formats.js';
import { kill } from './scenarios/kill.js';
import { limited } from './scenarios/limited.js';
import { memory } from './scenarios/memory.js';
import { pinned } from './scenarios/pinned.js';
import { real } from './scenarios/real.js';
import { rootfs } from './scenarios/rootfs.js';
import { startUp } from './scenarios/start-up.js';
import { planning, sharing, verifying } from './scenarios/store.js';
import { update } from './scenarios/update.js';

const SCENARIOS = [
  cold,
  pinned,
  update,
  again,
  memory,
  startUp,
  kill,
  distant,
  formats,
  limited,
  planning,
  sharing,
  verifying,
  rootfs,
  copy,
];
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

try {
  await main();
} catch (error) {
  const failure = await failureOf(error);
  reportFailure(failure, { json: false, debug: false });
  process.exitCode = failure.exitCode;
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const before = options.compareWith === undefined ? undefined : readResults(options.compareWith, options);
  const startedAt = new Date().toISOString();
  const path = join(RESULTS, `${startedAt.replaceAll(':', '-')}.json`);
  const about = { startedAt, node: process.version, cores: availableParallelism(), cpu: cpus()[0]?.model };
  const isReal = options.realBytes !== undefined;
  const told = { ...about, options: { ...options, only: [...(options.only ?? [])] } };
  const report = createReport(path, told, isReal ? REAL_ROWS : ROWS);
  const [busy = 0] = loadavg();
  if (busy > availableParallelism() / 2) {
    report.warn(`the machine was busy at the start: load ${busy.toFixed(1)} on ${about.cores} cores`);
  }
  const scratch = makeScratch(options.workDir);
  process.stderr.write(`seed ${options.seed}; results go to ${path}\n`);
  try {
    await runAll(isReal ? [real] : SCENARIOS, { options, report, scratch });
  } finally {
    process.stdout.write(`${report.text()}\n`);
  }
  if (options.tableIn !== undefined) {
    const day = startedAt.slice(0, 'YYYY-MM-DD'.length);
    const heading = `${day}, ${about.cores} cores (${about.cpu}), Node ${about.node.slice(1)}, ${options.runs} runs, load ${busy.toFixed(1)} at the start:`;
    writeMarkdownTable(options.tableIn, isReal ? 'real' : 'rows', heading, report.rows());
  }
  if (before !== undefined) tellComparison(compareResults(before, readResults(path, options)));
}

/** Exit code 1 if something got worse, 3 if that cannot be told. */
function tellComparison({ lines, worse, doubts }: Comparison): void {
  process.stdout.write(`\n${lines.join('\n')}\n`);
  if (doubts.length > 0) {
    process.stderr.write(
      'no verdict: the machine was too busy to tell, see the warnings; measure both again\n',
    );
    process.exitCode = 3;
  } else if (worse.length > 0) {
    process.stderr.write(`worse by more than 10 %: ${worse.join('; ')}\n`);
    process.exitCode = 1;
  }
}

/** A scenario that fails is reported, and the others still run. @throws PullError `interrupted`, `terminated` */
async function runAll(scenarios: typeof SCENARIOS, bench: Bench): Promise<void> {
  await untilSignal(async (signal) => {
    signal.addEventListener('abort', () => stop.abort(signal.reason));
    for (const scenario of scenarios) {
      try {
        await scenario(bench);
      } catch (error) {
        signal.throwIfAborted();
        const reason = error instanceof Error ? error.message : String(error);
        bench.report.warn(`${scenario.name} failed: ${reason}`);
      }
    }
  });
}

/** Stores lie on the samples' disk, and are gone however the bench ends. */
function makeScratch(workDir: string): string {
  mkdirSync(workDir, { recursive: true });
  const scratch = mkdtempSync(join(workDir, 'stores-'));
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  return scratch;
}
