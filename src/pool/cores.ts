import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/**
 * The cores this process may use: the smaller of its affinity and its cgroup's CPU quota, rounded up
 * (`os.availableParallelism()` of Node 20 does not see the quota). At least 1.
 */
export function usableCores(): number {
  return Math.max(1, Math.min(availableParallelism(), cgroupCores()));
}

/** Quota / period of cgroup v2's cpu.max (kernel documentation, cgroup-v2, "CPU"); Infinity without a quota. */
function cgroupCores(): number {
  let text: string;
  try {
    text = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8');
  } catch {
    return Number.POSITIVE_INFINITY; // no cgroup v2 here: no quota that could be read
  }
  return parseCpuMax(text);
}

export function parseCpuMax(text: string): number {
  const [quota, period] = text.trim().split(/\s+/).map(Number);
  const cores = Math.ceil((quota ?? Number.NaN) / (period ?? Number.NaN));
  return Number.isFinite(cores) && cores > 0 ? cores : Number.POSITIVE_INFINITY;
}
