import type { ChildProcess } from 'node:child_process';
import type { PullResult } from '../src/index.js';
import { benchFile, cpuSeconds, finish, lastJson, startNode } from './process.js';
import type { PullChildOptions } from './pull-child.js';

/** One pull in a process of its own. */
export interface PullRun {
  readonly result: PullResult;
  readonly cpuSeconds: number;
  readonly maxRssBytes: number;
  readonly wallSeconds: number;
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

/** Starts a pull. `tellProgress`: it prints the bytes received, ten times a second. */
export function startPull(job: PullJob, tellProgress: boolean, cores?: string): ChildProcess {
  const { host, ref, ...options } = job;
  const told: PullChildOptions = {
    reference: `${host}/bench:${ref}`,
    options: { ...options, plainHttp: true, platform: 'linux/amd64' },
    tellProgress,
  };
  return startNode([benchFile('pull-child.js'), JSON.stringify(told)], cores);
}

/** Pulls to the end. @throws Error when the pull fails */
export async function runPull(job: PullJob, cores?: string): Promise<PullRun> {
  const finished = await finish(startPull(job, false, cores));
  const { result, cpu, maxRssKib } = lastJson(finished) as {
    result: PullResult;
    cpu: NodeJS.CpuUsage;
    maxRssKib: number;
  };
  return {
    result,
    cpuSeconds: cpuSeconds(cpu),
    maxRssBytes: maxRssKib * 1024,
    wallSeconds: finished.wallMs / 1000,
  };
}

/** Compressed bytes of all layers. */
export function blobBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
}

/** Bytes of all tars. */
export function tarBytes({ layers }: PullResult): number {
  return layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
}
