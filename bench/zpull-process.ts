import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { benchFile, cpuSeconds, finish, startNode } from './process.js';

/** The program as users start it, from dist/bench on. */
export const ZPULL = fileURLToPath(new URL('../../bin/zpull.cjs', import.meta.url));

/** One run of the command, its threads included. */
export interface ZpullRun {
  readonly stdout: string;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  readonly maxRssBytes: number;
}

/**
 * Runs the command quietly, as users do: the bundle, V8's flags and libuv's threads are those of bin/zpull.cjs. `cores`: as `startNode`.
 * @throws Error when it fails
 */
export async function runZpull(args: readonly string[], cores?: string): Promise<ZpullRun> {
  const child = startNode(['--require', benchFile('meter-child.cjs'), ZPULL, ...args, '-q'], cores);
  const [finished, metered] = await Promise.all([
    finish(child),
    text(child.stdio[3] as NodeJS.ReadableStream),
  ]);
  const { code, signal, stdout, stderr, wallMs } = finished;
  if (code !== 0) throw new Error(`zpull ${args[0]} ended with ${signal ?? code}: ${stderr.slice(-4000)}`);
  const { cpu, maxRssKib } = JSON.parse(metered) as { cpu: NodeJS.CpuUsage; maxRssKib: number };
  return { stdout, wallSeconds: wallMs / 1000, cpuSeconds: cpuSeconds(cpu), maxRssBytes: maxRssKib * 1024 };
}
