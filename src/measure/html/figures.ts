import type { Measurement, Report, Run } from '../report.js';

/** The pull with default settings; if it was not measured the best one, or else the first. */
export function usualPull({ measurements, verdict }: Report): Measurement | undefined {
  const pulls = measurements.filter(({ stage }) => stage === 'pull');
  const setting = verdict?.default ?? verdict?.best;
  return pulls.find((pull) => setting !== undefined && hasSetting(pull, setting)) ?? pulls[0];
}

/** Whether these workers and connections were measured. */
export function hasSetting(
  { workers, connections }: Pick<Measurement, 'workers' | 'connections'>,
  setting: Pick<Measurement, 'workers' | 'connections'>,
): boolean {
  return workers === setting.workers && connections === setting.connections;
}

/** The run that is nearest to the median. */
export function medianRun({ runs, wallSeconds }: Measurement): Run | undefined {
  const distance = (run: Run) => Math.abs(run.wallSeconds - wallSeconds.median);
  return [...runs].sort((a, b) => distance(a) - distance(b))[0];
}

/** Three digits: `0.123`, `1.23`, `12.3`, `123`. */
export function threeDigits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size < 0.9995 ? 3 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

/** A size: `412.3 MB`, `1.2 GB`. */
export function megabytes(bytes: number): string {
  return bytes < 999.95e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
