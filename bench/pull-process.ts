import type { PullResult } from '../src/index.js';
import { benchFile, finish, lastJson, startNode } from './process.js';
import type { PullChildOptions } from './pull-child.js';
import { runZpull, type ZpullRun } from './zpull-process.js';

/** What `pull --json` prints. */
type PublicResult = Omit<PullResult, 'measured'>;

/** One pull by the command. */
export interface PullRun extends Omit<ZpullRun, 'stdout'> {
  readonly result: PublicResult;
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
  return { ...run, result: JSON.parse(stdout) as PublicResult };
}

/** Pulls to the end, by the library: its result has figures that the command does not print. @throws Error when the pull fails */
export async function measurePull(job: PullJob): Promise<PullResult> {
  return (lastJson(await finish(startPull(job, false))) as { result: PullResult }).result;
}

/** Starts a pull by the library. `tellProgress`: it prints the bytes received, ten times a second. */
export function startPull(job: PullJob, tellProgress: boolean): ReturnType<typeof startNode> {
  const { host, ref, ...options } = job;
  const told: PullChildOptions = {
    reference: `${host}/bench:${ref}`,
    options: { ...options, plainHttp: true, platform: 'linux/amd64' },
    tellProgress,
  };
  return startNode([benchFile('pull-child.js'), JSON.stringify(told)]);
}

/** Compressed bytes of all layers. */
export function blobBytes({ layers }: PublicResult): number {
  return layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
}

/** Bytes of all tars. */
export function tarBytes({ layers }: PublicResult): number {
  return layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
}
