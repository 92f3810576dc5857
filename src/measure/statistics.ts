import {
  max,
  mean,
  median,
  medianAbsoluteDeviation,
  min,
  permutationTest,
  sampleStandardDeviation,
} from 'simple-statistics';
import type { Statistics } from './report.js';

/**
 * Above this modified z-score a run is an outlier (Iglewicz and Hoaglin, "How to Detect and Handle
 * Outliers", 1993, who also give the factor).
 */
const OUTLIER_SCORE = 3.5;
const SCORE_FACTOR = 0.6745;

/** Returns the figures of repeated runs; NaN-free for at least one value. */
export function statisticsOf(values: readonly number[]): Statistics {
  const all = [...values];
  return {
    median: median(all),
    mean: mean(all),
    standardDeviation: all.length < 2 ? 0 : sampleStandardDeviation(all),
    min: min(all),
    max: max(all),
    outliers: outliersOf(all),
  };
}

/** Returns the middle value, or the mean of the two in the middle. @throws Error for no value */
export function medianOf(values: readonly number[]): number {
  return median([...values]);
}

/** Where half of the runs are equal their deviation is 0, and no score can be computed: none is named. */
function outliersOf(values: number[]): number[] {
  const deviation = medianAbsoluteDeviation(values);
  if (deviation === 0) return [];
  const middle = median(values);
  return [...values.keys()].filter(
    (index) => (SCORE_FACTOR * Math.abs(values[index]! - middle)) / deviation > OUTLIER_SCORE,
  );
}

/** How far apart repeated runs are: (largest - smallest) / median; 0 for equal runs. */
export function spreadOf({ min: least, max: most, median: middle }: Statistics): number {
  return most === least ? 0 : (most - least) / Math.abs(middle);
}

/** Differences that chance makes less often than this are called differences. */
const SIGNIFICANCE = 0.05;
/** With 10,000 permutations a probability near 0.05 is exact to 0.004. */
const PERMUTATIONS = 10_000;

/**
 * Returns which of two samples has the larger values: the Mann-Whitney test, by permutations of
 * ranks. Equal samples give equal answers, as the permutations are pseudo-random. `too-few`: not
 * even samples without overlap would be unlikely enough.
 */
export function compareSamples(
  before: readonly number[],
  now: readonly number[],
): 'larger' | 'smaller' | 'same' | 'too-few' {
  if (2 / binomial(before.length + now.length, now.length) > SIGNIFICANCE) return 'too-few';
  const ranks = doubledRanks([...before, ...now]);
  const [ranksBefore, ranksNow] = [ranks.slice(0, before.length), ranks.slice(before.length)];
  const probability = permutationTest(ranksBefore, ranksNow, 'two_side', PERMUTATIONS, pseudoRandom());
  if (probability > SIGNIFICANCE) return 'same';
  return mean(ranksNow) > mean(ranksBefore) ? 'larger' : 'smaller';
}

/** Twice the rank of each value, so that ties, which share a mean rank, have whole ones. */
function doubledRanks(values: readonly number[]): number[] {
  return values.map((value) =>
    values.reduce((sum, other) => sum + (other < value ? 2 : other === value ? 1 : 0), 1),
  );
}

function binomial(n: number, k: number): number {
  let count = 1;
  for (let i = 1; i <= k; i++) count = (count * (n - k + i)) / i;
  return count;
}

/** Numerical Recipes' linear congruential generator: good enough to shuffle some dozen ranks. */
function pseudoRandom(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
