import { readFileSync } from 'node:fs';
import { type PullOptions, pullImage } from '../src/index.js';

/** What the process is told, as JSON in its first argument. */
export interface PullChildOptions {
  readonly reference: string;
  readonly options: Omit<PullOptions, 'onEvent' | 'signal'>;
  /** Print how many bytes are to be fetched when that is known, and how many were received, ten times a second. */
  readonly tellProgress: boolean;
}

const { reference, options, tellProgress } = JSON.parse(process.argv[2] ?? '') as PullChildOptions;

const result = await pullImage(reference, {
  ...options,
  onEvent: (event) => {
    if (tellProgress && event.event === 'progress') tell({ receivedBytes: event.receivedBytes });
    if (tellProgress && event.event === 'planned') tell({ plannedBytes: event.totalBytes });
  },
});
tell({ result, cpu: process.cpuUsage(), maxRssKib: peakKib() });

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/**
 * The largest resident size of this process. getrusage(2) tells of what it was before exec, too, which is that of whoever
 * started it; Linux has the figure of the program alone.
 */
function peakKib(): number {
  try {
    const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    if (kib !== undefined) return Number(kib);
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS;
}
