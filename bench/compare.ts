import { readFileSync } from 'node:fs';
import { UsageError } from '../src/cli/failure.js';
import { compareSamples } from '../src/measure/statistics.js';
import type { Results, Row } from './report.js';
import { formatFigure } from './rows.js';

/** A ratio that got worse by more than this is a regression: repeated runs on a quiet machine lie within half of it. */
const MAX_WORSE = 0.1;

const HINT = 'give --compare a file in bench/results that npm run bench has written';

/** What a comparison of two results found. */
export interface Comparison {
  /** A line a row that both have as a ratio. */
  readonly lines: readonly string[];
  /** Names of the rows that got worse by more than 10 %, and beyond noise where there are runs enough to tell. */
  readonly worse: readonly string[];
  /** Why nothing can be said; empty if something can. */
  readonly doubts: readonly string[];
}

/**
 * Reads the results of an earlier run.
 * @throws UsageError when the file cannot be read, has no results, or has those of other options: their figures mean something else
 */
export function readResults(path: string, options: Results['options']): Results {
  const refusal = (problem: string) => new UsageError(`${path} ${problem}`, HINT);
  let results: Partial<Results> | null;
  try {
    results = JSON.parse(readFileSync(path, 'utf8')) as Partial<Results> | null;
  } catch (error) {
    throw refusal(`cannot be read: ${(error as Error).message}`);
  }
  if (!Array.isArray(results?.rows) || results.options === undefined)
    throw refusal('has no results of the bench');
  if (results.options.files !== options.files)
    throw refusal(`was measured with --files ${results.options.files}, not ${options.files}`);
  return results as Results;
}

/** Compares the ratios of two results that have a limit, and so a direction. Without any, or on a busy machine, nothing can be said. */
export function compareResults(before: Results, now: Results): Comparison {
  const old = new Map(before.rows.map((row) => [row.id, row]));
  const pairs = now.rows.flatMap((row) => {
    const other = old.get(row.id);
    const isRatio = row.unit === 'ratio' && (row.atMost ?? row.atLeast) !== undefined;
    if (!isRatio || row.figure === null || typeof other?.figure !== 'number') return [];
    const change = worseBy(row, other.figure, row.figure);
    const isWorse = change > MAX_WORSE && compareSamples(other.runs, row.runs) !== 'same';
    return [{ row, before: other.figure, change, isWorse }];
  });
  const doubts = [...before.warnings, ...now.warnings];
  if (pairs.length === 0) doubts.push('the two results have no ratio in common');
  return {
    lines: pairs.map(({ row, before, change, isWorse }) => {
      const percent = `${change > 0 ? '+' : ''}${(change * 100).toFixed(0)} %`;
      const figures = `${formatFigure(before, row.unit)} -> ${formatFigure(row.figure!, row.unit)}`;
      return `${row.name.trim()}: ${figures} (${percent}${isWorse ? ', WORSE' : ''})`;
    }),
    worse: pairs.filter(({ isWorse }) => isWorse).map(({ row }) => row.name.trim()),
    doubts,
  };
}

/** By which share of the earlier figure the later one is worse; negative if it is better. */
function worseBy({ atMost }: Row, before: number, now: number): number {
  return atMost === undefined ? before / now - 1 : now / before - 1;
}
