import { fileURLToPath } from 'node:url';
import type { PullResult } from '../src/api/pull.js';
import { type Ended, runChild } from '../src/measure/child.js';
import { type Called, runCommand, runNode as runNodeOn } from '../src/measure/command.js';

/** The program as users start it, from dist/bench on. */
export const ZPULL = fileURLToPath(new URL('../../bin/zpull.cjs', import.meta.url));

/** Aborting it kills what runs. */
export const stop = new AbortController();

/** Path of a compiled file of the bench. */
export function benchFile(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Runs node to its end, on the cores that `cores` names in taskset's words when given. */
export function runNode(args: readonly string[], cores?: string): Promise<Ended> {
  return runNodeOn(args, cores, { signal: stop.signal });
}

/** Runs another program to its end; returns its seconds. @throws Error when it fails */
export async function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<number> {
  const ended = await runChild(program, args, { signal: stop.signal, env: { ...process.env, ...env } });
  if (ended.code !== 0) throw failed(program, ended);
  return ended.wallMs / 1000;
}

/** Says how a program failed. */
export function failed(program: string, { code, signal, stderr }: Ended): Error {
  return new Error(`${program} ended with ${signal ?? code}: ${stderr}`);
}

/** One run of the command, its threads and programs included. */
export interface CommandRun {
  readonly result: PullResult;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  /** NaN of a command that does not state it. */
  readonly peakMemoryBytes: number;
}

/** Runs the command quietly. `cores`: as `runNode`. @throws PullError when it fails */
export async function runZpull(words: readonly string[], cores?: string): Promise<CommandRun> {
  const options = { signal: stop.signal, ...(cores !== undefined && { cores }) };
  return commandRunOf(await runCommand([ZPULL, ...words, '--json', '-q'], options));
}

function commandRunOf({ result, wallSeconds, cpuSeconds, peakMemoryBytes }: Called): CommandRun {
  return {
    // Of other commands than pull nobody looks at it but for what they have in common.
    result: result as PullResult,
    wallSeconds,
    cpuSeconds: cpuSeconds ?? 0,
    peakMemoryBytes: peakMemoryBytes ?? Number.NaN,
  };
}

export interface PullJob {
  readonly host: string;
  /** Name of the image in the layout. */
  readonly ref: string;
  readonly store: string;
  readonly workers?: number;
  readonly connections?: number;
  readonly limitRate?: number;
}

/** The command line of a pull, or of another command on the same image. */
export function pullWords(
  { host, ref, store, workers, connections, limitRate }: PullJob,
  command = 'pull',
): string[] {
  const given = { workers, connections, 'limit-rate': limitRate };
  const options = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  const image = [`${host}/bench:${ref}`, '--store', store, '--platform', 'linux/amd64'];
  return [command, ...image, ...options, '--plain-http'];
}

/** Pulls to the end. `cores`: as `runNode`. @throws PullError when the pull fails */
export function runPull(job: PullJob, cores?: string): Promise<CommandRun> {
  return runZpull(pullWords(job), cores);
}

/** Compressed bytes of all layers. */
export function blobBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
}

/** Bytes of all tars. */
export function tarBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
}
