import { type ErrorCode, PullError } from '../api/errors.js';
import type { PullResult } from '../api/pull.js';
import { type ChildOptions, type Ended, runChild } from './child.js';
import type { Finding } from './recorder.js';
import type { Stages } from './report.js';

/** What `--json` prints, as far as measurements need it. */
export interface Result extends Partial<Pick<PullResult, 'fetchedBytes' | 'layers'>> {
  readonly stages?: Stages;
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly hint: string };
}

/** What one call did. */
export interface Called extends Omit<Finding, 'bytes'> {
  readonly result: Result;
}

/** A line of `--progress json`. */
interface CommandEvent {
  readonly event?: unknown;
  readonly receivedBytes?: unknown;
}

interface CommandOptions extends Pick<ChildOptions, 'signal' | 'input' | 'onStart'> {
  /** Cores to run on, in taskset's words. */
  readonly cores?: string;
  /** Variables besides those of this process. */
  readonly env?: NodeJS.ProcessEnv;
  /** Called with each event, and the milliseconds since the start. */
  readonly onEvent?: (event: CommandEvent, atMs: number) => void;
}

/**
 * Runs the command as users do, in a process of its own: start-up, memory and CPU time are part of
 * the figures. `words`: the path of the command, and its arguments, `--json` among them.
 * @throws PullError as the command prints it; as `runChild`
 */
export async function runCommand(words: readonly string[], options: CommandOptions): Promise<Called> {
  const { cores, onEvent, env: more, ...passed } = options;
  // The launcher sets it for this process's cores; a child may have others.
  const { UV_THREADPOOL_SIZE: _, ...env } = process.env;
  const timeline: Array<readonly [number, number]> = [];
  const counts = { waiting: 0, miss: 0 };
  const ended = await runNode([...process.execArgv, ...words], cores, {
    ...passed,
    env: { ...env, ...more },
    onLine: (line, atMs) => {
      const event = parseEvent(line);
      if (event === undefined) return;
      onEvent?.(event, atMs);
      if (event.event === 'progress' && typeof event.receivedBytes === 'number') {
        timeline.push([Math.round(atMs), event.receivedBytes]);
      }
      if (event.event === 'waiting' || event.event === 'miss') counts[event.event] += 1;
    },
  });
  const result = resultOf(ended.stdout);
  if (ended.code !== 0 || result === undefined) throw failureOf(result, ended);
  const stages = result.stages ?? null;
  return {
    result,
    wallSeconds: ended.wallMs / 1000,
    cpuSeconds: ended.cpuSeconds ?? stages?.cpuSeconds ?? null,
    peakMemoryBytes: stages?.peakMemoryBytes ?? null,
    stages,
    timeline,
    doubts: doubtsOfNetwork(counts.waiting, counts.miss),
  };
}

/** Runs Node to its end, on the cores that `cores` names in taskset's words, or on all. @throws as `runChild` */
export function runNode(
  args: readonly string[],
  cores: string | undefined,
  options: ChildOptions,
): Promise<Ended> {
  if (cores === undefined) return runChild(process.execPath, args, options);
  return runChild('taskset', ['-c', cores, process.execPath, ...args], options);
}

function resultOf(stdout: string): Result | undefined {
  try {
    return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Result;
  } catch {
    return undefined;
  }
}

function failureOf(result: Result | undefined, { code, signal, stderr }: Ended): PullError {
  if (result?.error !== undefined) {
    const { code: errorCode, message, hint } = result.error;
    return new PullError(errorCode, message, { hint });
  }
  const said = stderr
    .split('\n')
    .filter((line) => !line.startsWith('{'))
    .join(' ')
    .trim()
    .slice(-300);
  const end = signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`;
  const hint = 'it was killed by somebody, or the system had too little memory: see its log (dmesg)';
  return new PullError(
    'internal',
    `the command ${end}${said && `: ${said}`}`,
    signal === null ? {} : { hint },
  );
}

function parseEvent(line: string): CommandEvent | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as CommandEvent;
  } catch {
    return undefined;
  }
}

/** What made a run on the network doubtful. */
export function doubtsOfNetwork(waits: number, misses: number): string[] {
  return [
    ...(waits > 0 ? ['the registry asked to wait, as it limits requests: the time includes that'] : []),
    ...(misses > 0 ? ['there were network failures: the time includes new attempts'] : []),
  ];
}
