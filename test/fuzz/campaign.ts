import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ChildJob, ChildLine } from './child.js';
import type { Finding } from './target.js';

/** No input takes a parser 20 ms; on a machine with much else to do a process may stand still for seconds. */
const STILL_MS = 60_000;

/** What a parser may have in memory: an input has 256 KiB at most. */
const MAX_HEAP_MIB = 512;

export interface Campaign extends Omit<ChildJob, 'counter' | 'show'> {
  readonly onTurn?: (target: string, seed: number) => void;
}

/** Tries inputs in a process of its own. @returns what it found: a broken promise, a run without end, the end of the process */
export async function search({ onTurn, ...job }: Campaign): Promise<Finding | undefined> {
  const directory = mkdtempSync(join(tmpdir(), 'zpull-fuzz-'));
  const counter = join(directory, 'counter');
  writeFileSync(counter, Buffer.alloc(8));
  try {
    let turn = { target: '', seed: job.seed };
    let finding: Finding | undefined;
    const ended = await runChild({ ...job, counter }, (line) => {
      if ('turn' in line) {
        turn = line.turn;
        onTurn?.(turn.target, turn.seed);
      }
      if ('finding' in line) finding = line.finding;
    });
    if (finding !== undefined || ended === 'done') return finding;
    const run = readFileSync(counter).readDoubleLE();
    const shown =
      run <= job.runs ? await inputOf({ ...job, ...turn, targets: [turn.target], counter }, run) : '';
    return { ...turn, input: shown, error: ended };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Input number `show` of a target, made again. */
async function inputOf(job: ChildJob, show: number): Promise<string> {
  let input = '';
  await runChild({ ...job, show }, (line) => {
    if ('input' in line) input = line.input;
  });
  return input;
}

/** Runs the child; `done`, or what became of it. */
async function runChild(job: ChildJob, onLine: (line: ChildLine) => void): Promise<string> {
  const child = spawn(
    process.execPath,
    [`--max-old-space-size=${MAX_HEAP_MIB}`, join(import.meta.dirname, 'child.js'), JSON.stringify(job)],
    // What it leaves when it is killed goes with the counter.
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TMPDIR: dirname(job.counter) } },
  );
  const watch = watchCounter(child, job.counter);
  const reader = createInterface({ input: child.stdout });
  reader.on('line', (line) => onLine(JSON.parse(line) as ChildLine));
  const read = once(reader, 'close');
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  await read;
  const isStill = watch.stop();
  if (isStill) return `a run did not end within ${STILL_MS / 1000} s`;
  return code === 0 ? 'done' : `the process ended with ${signal ?? `exit code ${code}`}`;
}

/** Ends the child when no run has begun for long; `stop` says whether it did. */
function watchCounter(child: ChildProcess, counter: string): { stop: () => boolean } {
  let isStill = false;
  let seen = '';
  let stillMs = 0;
  const everyMs = 1000;
  const timer = setInterval(() => {
    const count = readFileSync(counter).toString('hex');
    stillMs = count === seen ? stillMs + everyMs : 0;
    seen = count;
    if (stillMs < STILL_MS) return;
    isStill = true;
    child.kill('SIGKILL');
  }, everyMs);
  return {
    stop: () => {
      clearInterval(timer);
      return isStill;
    },
  };
}
