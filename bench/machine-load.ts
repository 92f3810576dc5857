import { cpus } from 'node:os';
import type { Report } from './report.js';

/** Others using more than this share of what the processor did make wall times doubtful. */
const DOUBTFUL_FOREIGN_SHARE = 0.1;

/** How much of what the processor did, while we measured, was not ours. */
export class MachineLoad {
  #startedSeconds = 0;
  #allSeconds = 0;
  #ownSeconds = 0;

  start(): void {
    this.#startedSeconds = busySeconds();
  }

  /** `ownSeconds`: CPU that our processes used since `start`. */
  stop(ownSeconds: number): void {
    this.#allSeconds += busySeconds() - this.#startedSeconds;
    this.#ownSeconds += ownSeconds;
  }

  /** Warns when others took much; the kernel's own threads count as others. `when`: what was measured meanwhile. */
  warn(report: Report, when: string): void {
    const share = Math.max(0, this.#allSeconds - this.#ownSeconds) / this.#allSeconds;
    if (share <= DOUBTFUL_FOREIGN_SHARE) return;
    report.warn(
      `${(share * 100).toFixed(0)} % of the processor's work ${when} was somebody else's: wall times are doubtful`,
    );
  }
}

function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}
