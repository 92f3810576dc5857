import { readFileSync, statfsSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';
import { usableCores } from '../api/measure.js';
import { StageRecorder } from '../api/stages.js';
import type { Machine, Run } from './report.js';

/** Names of file systems by their numbers in statfs(2). */
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  801189825: 'zfs',
  16914836: 'tmpfs',
  2035054128: 'overlay',
  26985: 'nfs',
  1702057286: 'fuse',
};

/** The version of zpull and of what decodes zstd, of the package that the command belongs to. */
interface PackageFacts {
  readonly version: string;
  readonly zstd: string;
}

/** Reads `package.json` beside the directory of `bin/zpull.cjs`. */
export function packageFacts(command: string): PackageFacts {
  const text = readFileSync(new URL('../package.json', `file://${command}`), 'utf8');
  const { version, dependencies } = JSON.parse(text) as {
    version: string;
    dependencies: Record<string, string>;
  };
  const decoders = ['zstddec', '@mongodb-js/zstd'].map((name) => `${name} ${dependencies[name]}`);
  return { version, zstd: decoders.join(', ') };
}

/** Describes this machine, and the file system at `directory`. */
export function describeMachine(directory: string, zstd: string): Machine {
  const { type: number } = statfsSync(directory);
  return {
    cores: usableCores(),
    cpuModel: cpus()[0]?.model.trim() ?? 'unknown',
    memoryBytes: totalmem(),
    kernel: `${type()} ${release()}`,
    node: process.versions.node,
    zstd,
    fileSystem: FILE_SYSTEMS[number] ?? `0x${number.toString(16)}`,
  };
}

/** Clocks that differ by more: the machine slept, or somebody set the clock. */
const MAX_CLOCK_SHIFT_MS = 500;

/** What else happened on the machine during a run. */
export interface Surroundings extends Pick<Run, 'startedAtMs' | 'foreignShare'> {
  readonly clockJumped: boolean;
}

/**
 * Watches the machine during one run. Returns a function that ends it; `ownSeconds`: CPU time of
 * the run, null where it is unknown. `reportStartedMs` is a time of `performance.now()`.
 */
export function watchMachine(reportStartedMs: number): (ownSeconds: number | null) => Surroundings {
  const [wallMs, steadyMs, busy] = [Date.now(), performance.now(), busySeconds()];
  // Counts what this process does around the run, such as copying stores, and what its programs did.
  const recorder = new StageRecorder();
  return (ownSeconds) => {
    const shiftMs = Date.now() - wallMs - (performance.now() - steadyMs);
    const all = busySeconds() - busy;
    const own = ownSeconds === null ? null : Math.max(ownSeconds, recorder.result().cpuSeconds);
    return {
      startedAtMs: Math.round(steadyMs - reportStartedMs),
      foreignShare: own === null ? null : all <= 0 ? 0 : Math.max(0, 1 - own / all),
      clockJumped: Math.abs(shiftMs) > MAX_CLOCK_SHIFT_MS,
    };
  };
}

/** CPU seconds of all programs since the machine started, the kernel's own included. */
function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}

/** The first core that this process may use, in taskset's words. */
export function firstCore(): string {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    return /^Cpus_allowed_list:\s*(\d+)/m.exec(status)?.[1] ?? '0';
  } catch {
    return '0';
  }
}
