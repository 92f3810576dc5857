import type { PullResult } from '../api/pull.js';

/** The documented part of a result, as `--json` prints it: figures for benchmarks stay inside. */
export function publicResult({ measured: _, ...result }: PullResult): Omit<PullResult, 'measured'> {
  return result;
}
