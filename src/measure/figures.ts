import type { Measurement, Report, Run } from './report.js';

/** Settings whose medians are this close are equally good. */
export const EQUAL_SHARE = 0.05;
/** A pull that receives its bytes at this share of the network's rate waits for the network. */
const FULL_RATE_SHARE = 0.8;
/** If receiving, or waiting for it, takes less of a pull than this, it is not what limits it. */
export const NETWORK_SHARE = 0.5;
/** More of a processor's work by other programs makes times doubtful. */
export const DOUBTFUL_FOREIGN_SHARE = 0.1;

/** What measurements say about one resource: the seconds that the pull takes with it alone. */
export interface Bounds {
  readonly network: number;
  /** Everything but the network. */
  readonly local: number;
  /** Writing and syncing, where it was measured. */
  readonly disk: number | undefined;
  /** From the first to the last byte of the median pull, where stages are known. */
  readonly fetching: number | undefined;
  /** The share of the median pull in which it waits for answers of the registry, 0 where unknown. */
  readonly waiting: number;
}

/** Whether a pull received its bytes as fast as the network alone does. */
export function reachesFullRate({ network, fetching }: Bounds): boolean {
  return fetching !== undefined && network >= fetching * FULL_RATE_SHARE;
}

/** Whether a pull receives at the full rate of the network, and that takes most of its time. */
export function fillsNetwork(bounds: Bounds, { wallSeconds }: Measurement): boolean {
  return reachesFullRate(bounds) && bounds.network >= wallSeconds.median * NETWORK_SHARE;
}

/** The measurement of this id. */
export function find({ measurements }: Report, id: string): Measurement | undefined {
  return measurements.find((measurement) => measurement.id === id);
}

export function ofStage({ measurements }: Report, stage: Measurement['stage']): Measurement[] {
  return measurements.filter((measurement) => measurement.stage === stage);
}

/** The fastest network. */
export function largest(all: readonly Measurement[]): Measurement | undefined {
  return [...all].sort((a, b) => b.bytesPerSecond.median - a.bytesPerSecond.median)[0];
}

/** The run that is nearest to the median. */
export function medianRun({ runs, wallSeconds }: Pick<Measurement, 'runs' | 'wallSeconds'>): Run {
  const distance = (run: Run) => Math.abs(run.wallSeconds - wallSeconds.median);
  return [...runs].sort((a, b) => distance(a) - distance(b))[0]!;
}

/** How busy all cores were during the median run, with other programs; undefined where unknown. */
export function busyShare(measurement: Measurement, cores: number): number | undefined {
  const { cpuSeconds, foreignShare, wallSeconds } = medianRun(measurement);
  if (cpuSeconds === null) return undefined;
  const all = cpuSeconds / Math.max(1 - (foreignShare ?? 0), 0.01);
  return Math.min(1, all / wallSeconds / cores);
}

/** A time with three digits: `0.123 s`, `1.23 s`, `12.3 s`, `123 s`. */
export function formatSecondsOf(seconds: number): string {
  return `${secondsDigits(seconds)} s`;
}

export function secondsDigits(seconds: number): string {
  return seconds.toFixed(seconds < 0.9995 ? 3 : seconds < 9.995 ? 2 : seconds < 99.95 ? 1 : 0);
}

/** A share in whole percents, rounded. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
