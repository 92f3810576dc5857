import { cpus } from 'node:os';

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

  /** 0 to 1; the kernel's own threads count as foreign. */
  foreignShare(): number {
    return Math.max(0, this.#allSeconds - this.#ownSeconds) / this.#allSeconds;
  }
}

function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}
