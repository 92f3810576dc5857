import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Readable } from 'node:stream';
import { StageRecorder } from '../api/stages.js';
import { formatDuration } from '../format/figures.js';

/** A program that has ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last 16 MiB of stdout. */
  readonly stdout: string;
  /** The last lines of stderr. */
  readonly stderr: string;
  /** From the start to the exit, in milliseconds. */
  readonly wallMs: number;
  /**
   * CPU time of the program and of those that it waited for, to 10 ms; null where it cannot be told,
   * as where there is no `/proc`. Wrong if another program of this process ends meanwhile.
   */
  readonly cpuSeconds: number | null;
}

export interface ChildOptions {
  /** Aborting kills the program and all that it started. */
  readonly signal: AbortSignal;
  readonly env?: NodeJS.ProcessEnv;
  /** A program that takes longer is killed. */
  readonly timeoutMs?: number;
  /** Written to its standard input. */
  readonly input?: string;
  /** Called with the number of the process. */
  readonly onStart?: (pid: number) => void;
  /** Called with each line of stderr, and the milliseconds since the start. */
  readonly onLine?: (line: string, atMs: number) => void;
}

/** A message of another program: the end says what went wrong. */
const MAX_STDERR_LENGTH = 2000;
/** A result of `zpull pull --json` has half a KiB a layer; other programs print little. */
const MAX_STDOUT_LENGTH = 16 * 2 ** 20;
/** An event of `--progress json` has some hundred characters. */
const MAX_LINE_LENGTH = 64 * 2 ** 10;
/** What a program has printed is read within milliseconds of its end. */
const MAX_DRAIN_MS = 1000;

/**
 * Runs a program to its end, in a process group of its own: a program that it started in turn is
 * killed with it, and Ctrl-C reaches it only through `signal`.
 * @throws Error when it cannot be started, or takes longer than `timeoutMs`; the reason of an abort
 */
export function runChild(
  program: string,
  args: readonly string[],
  { signal, env = process.env, timeoutMs, input, onStart, onLine }: ChildOptions,
): Promise<Ended> {
  signal.throwIfAborted();
  const programSeconds = watchPrograms();
  const startedMs = performance.now();
  const child = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
  if (child.pid !== undefined) onStart?.(child.pid);
  const kill = () => killGroup(child.pid);
  signal.addEventListener('abort', kill, { once: true });
  // A program that does not read its input may have closed it.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const stdout = new Tail(MAX_STDOUT_LENGTH);
  child.stdout.setEncoding('utf8').on('data', (text: string) => stdout.add(text));
  let stderr = '';
  const endLine = eachLine(child.stderr, (line) => {
    onLine?.(line, performance.now() - startedMs);
    stderr = `${stderr}${line}\n`.slice(-MAX_STDERR_LENGTH);
  });
  let drain: NodeJS.Timeout | undefined;
  let isLate = false;
  const onLate = () => {
    isLate = true;
    kill();
  };
  const late = timeoutMs === undefined ? undefined : setTimeout(onLate, timeoutMs);
  return new Promise<Ended>((resolve, reject) => {
    let wallMs = 0;
    let cpuSeconds: number | null = null;
    child.once('error', reject);
    child.once('exit', () => {
      wallMs = performance.now() - startedMs;
      cpuSeconds = programSeconds();
      // What it left running would be measured with what comes next, and keep its files busy.
      kill();
      // A daemon that it started has left its group, and may have its output open forever.
      drain = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, MAX_DRAIN_MS);
    });
    child.once('close', (code, ended) => {
      endLine();
      if (signal.aborted) reject(signal.reason as Error);
      else if (isLate) reject(new Error(`did not end within ${formatDuration(timeoutMs!)}`));
      else resolve({ code, signal: ended, stdout: stdout.text, stderr, wallMs, cpuSeconds });
    });
  }).finally(() => {
    clearTimeout(drain);
    clearTimeout(late);
    signal.removeEventListener('abort', kill);
  });
}

/** The last characters of a text that comes in pieces. */
class Tail {
  readonly #maxLength: number;
  readonly #pieces: string[] = [];
  #length = 0;

  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  add(piece: string): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
    while (this.#length - this.#pieces[0]!.length >= this.#maxLength)
      this.#length -= this.#pieces.shift()!.length;
  }

  get text(): string {
    return this.#pieces.join('').slice(-this.#maxLength);
  }
}

/**
 * Calls `use` with each line, without what is beyond `MAX_LINE_LENGTH` characters of one. Returns a
 * function that uses the last line if nothing ends it.
 */
function eachLine(stream: Readable, use: (line: string) => void): () => void {
  let line = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    const [first = '', ...more] = text.split('\n');
    line = (line + first).slice(0, MAX_LINE_LENGTH);
    for (const next of more) {
      use(line);
      line = next.slice(0, MAX_LINE_LENGTH);
    }
  });
  return () => {
    if (line !== '') use(line);
  };
}

/**
 * Returns a function that returns the CPU seconds of programs that have ended since: what a recorder
 * counts of this process and its programs, without this process.
 */
function watchPrograms(): () => number | null {
  const [recorder, own] = [new StageRecorder(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(own);
    const seconds = recorder.result().cpuSeconds - (user + system) / 1e6;
    return seconds < 0.005 ? null : Math.round(seconds * 100) / 100;
  };
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}

/** The first of these programs that is not in the search path. */
export function missingProgram(...programs: readonly string[]): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(delimiter);
  return programs.find((program) => !directories.some((directory) => existsSync(join(directory, program))));
}
