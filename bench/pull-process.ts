import type { PullResult } from '../src/api/pull.js';
import { benchFile, startNode } from './process.js';
import type { PullChildOptions } from './pull-child.js';
import { runZpull, type ZpullRun } from './zpull-process.js';

/** One pull by the command. */
export interface PullRun extends Omit<ZpullRun, 'stdout'> {
  /** As `pull --json` prints it. */
  readonly result: PullResult;
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

/** Pulls to the end, by the command. `cores`: as `startNode`. @throws Error when the pull fails */
export async function runPull(job: PullJob, cores?: string): Promise<PullRun> {
  const { host, ref, store, workers, connections, limitRate } = job;
  const given = { workers, connections, 'limit-rate': limitRate };
  const options = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  const args = ['pull', `${host}/bench:${ref}`, '--store', store, '--platform', 'linux/amd64'];
  const { stdout, ...run } = await runZpull([...args, ...options, '--plain-http', '--json'], cores);
  return { ...run, result: JSON.parse(stdout) as PullResult };
}

/** Starts a pull by the library, which prints the bytes received, ten times a second. */
export function startPull(job: PullJob): ReturnType<typeof startNode> {
  const { host, ref, ...options } = job;
  const told: PullChildOptions = {
    reference: `${host}/bench:${ref}`,
    options: { ...options, plainHttp: true, platform: 'linux/amd64' },
  };
  return startNode([benchFile('pull-child.js'), JSON.stringify(told)]);
}

/** Compressed bytes of all layers. */
export function blobBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
}

/** Bytes of all tars. */
export function tarBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
}
