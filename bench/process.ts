import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A process that ran to its end. */
export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** From spawn to end. */
  readonly wallMs: number;
}

/** Starts node with `args`, on the cores that `cores` names in taskset's words when given. */
export function startNode(args: readonly string[], cores?: string): ChildProcess {
  const count = cores === undefined ? availableParallelism() : cores.split(',').length;
  const command = [process.execPath, ...args];
  const [program = '', ...rest] = cores === undefined ? command : ['taskset', '-c', cores, ...command];
  // As bin/zpull.cjs sets it: decodes run on libuv's pool, and look-ups of names must not queue behind them.
  const env = { ...process.env, UV_THREADPOOL_SIZE: String(count + 4) };
  // The fourth is for bench/meter-child.cts.
  return spawn(program, rest, { env, stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
}

/** Whether processes can be pinned to these cores here. */
export function canPin(cores: string): boolean {
  return spawnSync('taskset', ['-c', cores, process.execPath, '--version']).status === 0;
}

/** Waits for the end of a process, with what it wrote. `onLine` hears of each whole line of stdout at once. */
export function finish(
  child: ChildProcess,
  onLine: (line: string) => void = () => undefined,
): Promise<Finished> {
  const startedMs = performance.now();
  let stdout = '';
  let stderr = '';
  let seen = 0;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (let end = stdout.indexOf('\n', seen); end >= 0; end = stdout.indexOf('\n', seen)) {
      onLine(stdout.slice(seen, end));
      seen = end + 1;
    }
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    let wallMs = 0;
    child.once('error', reject);
    child.once('exit', () => {
      wallMs = performance.now() - startedMs;
    });
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr, wallMs }));
  });
}

/** Runs node to its end. */
export function runNode(args: readonly string[], cores?: string): Promise<Finished> {
  return finish(startNode(args, cores));
}

/** Runs another program to its end; its seconds. @throws Error when it fails */
export async function runProgram(program: string, args: readonly string[]): Promise<number> {
  const finished = await finish(spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
  const { code, signal, stderr, wallMs } = finished;
  if (code !== 0) throw new Error(`${program} ended with ${signal ?? code}: ${stderr.slice(-4000)}`);
  return wallMs / 1000;
}

/** The first of these programs that is not installed. */
export function missingProgram(...programs: readonly string[]): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(delimiter);
  return programs.find((program) => !directories.some((directory) => existsSync(join(directory, program))));
}

/** Path of a compiled file of the bench. */
export function benchFile(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** The last line of stdout as JSON. @throws Error with stderr when the process failed */
export function lastJson(finished: Finished): unknown {
  const { code, signal, stdout, stderr } = finished;
  if (code !== 0) throw new Error(`a process ended with ${signal ?? code}: ${stderr.slice(-4000)}`);
  return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
}

/** Seconds of `process.cpuUsage()`. */
export function cpuSeconds(cpu: NodeJS.CpuUsage): number {
  return (cpu.user + cpu.system) / 1e6;
}
