/** A chart of lines: what the page's script draws, and what a table beside it says. */
export interface LineChart {
  readonly id: string;
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  /** `log2`: each step to the right doubles, and the values of `x` alone are marked. */
  readonly xScale: 'linear' | 'log2';
  readonly x: readonly number[];
  readonly series: readonly LineSeries[];
}

export interface LineSeries {
  readonly label: string;
  /** One for each of `x`; null where nothing was measured. */
  readonly values: readonly (number | null)[];
  /** How far the runs lie apart. */
  readonly spread: {
    readonly low: readonly (number | null)[];
    readonly high: readonly (number | null)[];
  } | null;
}
