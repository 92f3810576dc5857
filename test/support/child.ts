import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import type { PullEvent, PullResult } from '../../src/api/pull.js';
import type { ChildJob } from './pull-child.js';

/** A line of a child that pulls. */
export type ChildLine =
  | PullEvent
  | { readonly event?: undefined; readonly open: Open; readonly maxRssBytes: number }
  | { readonly event?: undefined; readonly result: PullResult }
  | { readonly event?: undefined; readonly error: { readonly code: string; readonly message: string } };

/** Threads and files that a process has open after a pull. */
export interface Open {
  readonly threads: number;
  readonly files: number;
}

export interface PullingChild {
  readonly process: ChildProcess;
  /** All lines so far. */
  readonly lines: readonly ChildLine[];
  /** Resolves when the process is gone, with its exit code, or the signal that ended it. */
  readonly gone: Promise<number | string>;
}

/** A process that runs longer hangs: it gets a SIGTERM, which no test expects. */
const LIMIT_MS = 90_000;

/**
 * Starts a process that pulls; it is killed when the test ends. `onLine` is called with each line; `env` is added
 * to the environment.
 */
export function startPullingChild(
  t: TestContext,
  job: ChildJob,
  onLine: (line: ChildLine, child: ChildProcess) => void = () => {},
  env: Readonly<Record<string, string>> = {},
): PullingChild {
  const script = join(import.meta.dirname, 'pull-child.js');
  const child = spawn(process.execPath, [...process.execArgv, script, JSON.stringify(job)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const limit = setTimeout(() => child.kill('SIGTERM'), LIMIT_MS);
  t.after(() => {
    clearTimeout(limit);
    child.kill('SIGKILL');
  });
  const lines: ChildLine[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on('line', (text) => {
    const line = JSON.parse(text) as ChildLine;
    lines.push(line);
    onLine(line, child);
  });
  const read = once(reader, 'close');
  const gone = once(child, 'exit').then(async ([code, signal]: (number | string | null)[]) => {
    await read;
    return code ?? signal ?? 'nothing';
  });
  return { process: child, lines, gone };
}

/** Results and errors, without the events. */
export function outcomesOf(
  lines: readonly ChildLine[],
): Array<PullResult | { code: string; message: string }> {
  return lines.flatMap((line): Array<PullResult | { code: string; message: string }> => {
    if (line.event !== undefined || 'open' in line) return [];
    return ['result' in line ? line.result : line.error];
  });
}

/** What was open after each pull. */
export function openAfter(lines: readonly ChildLine[]): Open[] {
  return lines.flatMap((line) => (line.event === undefined && 'open' in line ? [line.open] : []));
}

/** The largest resident size that the process had until after its last pull. */
export function maxRssBytesOf(lines: readonly ChildLine[]): number {
  return lines.reduce(
    (most, line) => (line.event === undefined && 'open' in line ? line.maxRssBytes : most),
    0,
  );
}
