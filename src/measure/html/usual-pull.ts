import { DEFAULT_CONNECTIONS, defaultWorkersOf } from '../../api/measure.js';
import { find, ofStage } from '../figures.js';
import type { Measurement, Report, Verdict } from '../report.js';

/** The pull that the page shows more of: the verdict's, that with default settings, or the first. */
export function usualPull(report: Report): Measurement | undefined {
  const { verdict, machine } = report;
  const setting = verdict?.default ?? verdict?.best;
  if (setting !== undefined) return pullOf(report, setting);
  const byDefault = { workers: defaultWorkersOf(machine.cores), connections: DEFAULT_CONNECTIONS };
  return pullOf(report, byDefault) ?? ofStage(report, 'pull')[0];
}

/** The pull with this setting. */
export function pullOf(
  report: Report,
  { workers, connections }: Pick<Verdict['best'], 'workers' | 'connections'>,
): Measurement | undefined {
  return find(report, `pull/w${workers}/c${connections}`);
}
