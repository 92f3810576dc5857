import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Comparison, compareResults, readResults } from './compare.js';
import type { Bench } from './context.js';
import { writeMarkdownTable } from './markdown.js';
import { type BenchOptions, parseOptions, USAGE } from './options.js';
import { createReport, type Results } from './report.js';
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

await main();

async function main(): Promise<void> {
  let options: BenchOptions;
  let before: Results | undefined;
  try {
    options = parseOptions(process.argv.slice(2));
    if (options.compareWith !== undefined) before = readResults(options.compareWith, options);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}\n`);
    process.exitCode = 2;
    return;
  }
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
  await runAll(isReal ? [real] : SCENARIOS, { options, report, scratch });
  process.stdout.write(`${report.text()}\n`);
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

/** A scenario that fails is reported, and the others still run. */
async function runAll(scenarios: typeof SCENARIOS, bench: Bench): Promise<void> {
  for (const scenario of scenarios) {
    try {
      await scenario(bench);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      bench.report.warn(`${scenario.name} failed: ${reason}`);
    }
  }
}

/** Stores lie on the samples' disk, and are gone however the bench ends. */
function makeScratch(workDir: string): string {
  mkdirSync(workDir, { recursive: true });
  const scratch = mkdtempSync(join(workDir, 'stores-'));
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));
  return scratch;
}
